use proptest::prelude::*;

use super::*;

/// The generator of contract example T6.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 1_u64;
    let step = |_| {
        x = (x * 1_103_515_245 + 12_345) % (1 << 31);
        x.to_le_bytes()[2]
    };
    (0..len).map(step).collect()
}

fn whole(data: &[u8]) -> Digests {
    let mut digester = Digester::new(Mode::Full);
    digester.update(Bytes::copy_from_slice(data));
    digester.finish().unwrap()
}

fn in_chunks(data: &[u8], mut sizes: impl Iterator<Item = usize>) -> Digests {
    let mut digester = Digester::new(Mode::Full);
    let mut rest = data;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(sizes.next().unwrap().min(rest.len()));
        digester.update(Bytes::copy_from_slice(chunk));
        rest = after;
    }
    digester.finish().unwrap()
}

/// Where no position triggers, both parts are the one character of the whole input; this crate forgets the second one.
fn oracle(data: &[u8]) -> String {
    let text = fuzzyhash::FuzzyHash::new(data).to_string();
    match text.strip_prefix("3:").and_then(|rest| rest.strip_suffix(':')) {
        Some(part) if part.len() == 1 => format!("{text}{part}"),
        _ => text,
    }
}

fn own(data: &[u8]) -> String {
    let mut ssdeep = Ssdeep::new();
    ssdeep.update(data);
    ssdeep.finish().unwrap()
}

#[test]
fn ssdeep_of_bytes_without_a_trigger_is_that_of_the_original_program() {
    let mut data = vec![b'Q'; 4094];
    data.extend([1, 1]);
    assert_eq!(own(&data), "3:H:H");
}

#[test]
fn ssdeep_agrees_with_the_oracle_on_noise_of_many_sizes() {
    let data = noise(3 << 20);
    for size in [4096, 4097, 5000, 6143, 6144, 12_289, 65_537, 100_000, 262_144, 786_433, 1 << 20, 3 << 20] {
        assert_eq!(own(&data[..size]), oracle(&data[..size]), "{size}");
    }
}

#[test]
fn ssdeep_agrees_with_the_oracle_on_repetitive_input() {
    for period in [1, 2, 3, 5, 6, 7, 8, 12, 16, 31, 48, 64, 69] {
        let unit = noise(period);
        let data: Vec<u8> = unit.iter().copied().cycle().take(300_000 + period).collect();
        assert_eq!(own(&data), oracle(&data), "{period}");
    }
}

#[test]
fn ssdeep_agrees_with_the_oracle_when_many_levels_are_alive() {
    // Bytes chosen so that the rolling sum plus one has many factors two: nothing can be given up for long.
    let mut data = Vec::new();
    let mut x = 7_u64;
    for round in 0..60_000_u32 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let byte = x.to_le_bytes()[5];
        data.extend(if round % 3 == 0 { [byte, 0, 0, 0, 0, 0, 0, 0] } else { [byte & 1; 8] });
    }
    assert_eq!(own(&data), oracle(&data));
}

#[test]
fn ssdeep_of_zeros_is_nearly_empty() {
    assert_eq!(own(&[0; 4096]), "3::");
}

#[test]
fn thresholds_decide_what_is_reported() {
    let data = noise(4096);
    assert_eq!((whole(&data[..50]).tlsh, whole(&data[..50]).ssdeep), (None, None));
    assert!(whole(&data[..51]).tlsh.is_some());
    assert!(whole(&data[..4095]).ssdeep.is_none());
    assert!(whole(&data).ssdeep.is_some());
}

#[test]
fn empty_input_has_digests() {
    let digests = Digester::new(Mode::Full).finish().unwrap();
    assert_eq!(digests.md5, "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!((digests.size, digests.ssdeep, digests.tlsh), (0, None, None));
}

#[test]
fn sha256_only_leaves_the_others_empty() {
    let mut digester = Digester::new(Mode::Sha256Only);
    digester.update(Bytes::from_static(b"abc"));
    let digests = digester.finish().unwrap();
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digests, Digests { size: 3, sha256: sha256.into(), ..Digests::default() });
}

#[test]
fn threads_and_inline_agree_around_the_border() {
    let limit = usize::try_from(SPREAD_AT).unwrap();
    let data = noise(limit * 3);
    for size in [limit - 1, limit, limit + 1, limit * 3] {
        // One chunk below the border stays inline; the parts are then compared with a run over threads.
        let mut inline = Parts::default();
        inline.wide.update(&data[..size]);
        inline.fuzzy.update(&data[..size]);
        inline.locality.update(&data[..size]);
        let spread = in_chunks(&data[..size], [1, 4095, 70_000, 3, 33_000].into_iter().cycle());
        assert_eq!(spread.sha512, hex(&inline.wide.sha512.finalize()));
        assert_eq!(spread.md5, hex(&inline.wide.md5.finalize()));
        assert_eq!(spread.ssdeep, inline.fuzzy.0.hasher.unwrap().finish());
        assert_eq!(spread.tlsh, tlsh_text(&inline.locality.0.hasher.unwrap()));
        assert_eq!(spread, digest_reader(&data[..size], Mode::Full).unwrap());
    }
}

#[test]
fn a_failing_reader_is_an_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let got = digest_reader(Broken, Mode::Full);
    assert!(matches!(got, Err(DigestError::Read(_))), "got {got:?}");
}

#[test]
fn a_panic_in_a_thread_becomes_an_error() {
    struct Clumsy;
    impl Part for Clumsy {
        const NAME: &'static str = "clumsy";
        fn update(&mut self, _: &[u8]) {
            panic!("on purpose");
        }
    }
    let mut lane = Lane::start(Clumsy).unwrap();
    for _ in 0..3 * CHUNKS_IN_FLIGHT {
        lane.send(&Bytes::from_static(b"x"));
    }
    let got = lane.join().map(|_| ());
    assert!(matches!(got, Err(DigestError::Panicked("clumsy"))), "got {got:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn chunking_does_not_matter(
        seed in proptest::collection::vec(any::<u8>(), 1..400),
        repeat in 1_usize..1200,
        sizes in proptest::collection::vec(1_usize..60_000, 1..12),
    ) {
        let data: Vec<u8> = seed.iter().copied().cycle().take(seed.len() * repeat).collect();
        prop_assert_eq!(in_chunks(&data, sizes.into_iter().cycle()), whole(&data));
    }

    #[test]
    fn ssdeep_agrees_with_the_oracle(
        parts in proptest::collection::vec((any::<u8>(), 1_usize..9000, any::<bool>()), 1..40),
    ) {
        let noise = noise(9000);
        let mut data = Vec::new();
        for (byte, len, random) in parts {
            data.extend(noise[..len].iter().map(|n| if random { n ^ byte } else { byte }));
        }
        data.resize(data.len().max(4096), 1);
        prop_assert_eq!(own(&data), oracle(&data));
    }
}
