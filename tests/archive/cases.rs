//! The archives of the table; how their walks end stands in `ends.txt`.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{AesMode, CompressionMethod, ZipWriter};

use super::build::{
    Ends, Entry, Wide, bz2, deflate, deflated, entry, gz, gz_named, header, header_with, padded, pax, tar, tar_entry,
    zip, zip_with,
};

pub(crate) struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub passwords: &'static [&'static str],
}

fn case(name: &'static str, bytes: Vec<u8>) -> Case {
    Case { name, bytes, passwords: &[] }
}

fn locked(name: &'static str, bytes: Vec<u8>, passwords: &'static [&'static str]) -> Case {
    Case { name, bytes, passwords }
}

pub(crate) fn all() -> Vec<Case> {
    [kinds(), bombs(), nested(), encrypted(), cut_off(), zip_lies(), tar_lies(), names(), no_files()]
        .into_iter()
        .flatten()
        .collect()
}

fn two() -> Vec<Entry> {
    vec![deflated("a", "1"), deflated("b", "2")]
}

fn two_in_tar() -> Vec<u8> {
    tar(&[tar_entry("a", b'0', "1"), tar_entry("b", b'0', "2")])
}

fn kinds() -> Vec<Case> {
    let sfx = [&b"MZ program "[..], &zip(&two())].concat();
    vec![
        case("nothing", Vec::new()),
        case("text", b"plain text".to_vec()),
        case("zeros", vec![0; 4096]),
        case("zip", zip(&two())),
        case("bzip2 in zip", zip(&[Entry { method: 12, ..entry("a", "1") }])),
        case("self-extracting zip", sfx),
        case("self-extracting zip whose offsets count the program", {
            let mut bytes = b"MZ".to_vec();
            let mut first = entry("a", "1");
            first.offset = Some(2);
            bytes.extend(zip_with(&[first], &Ends { offset: Some(2 + 32), ..Ends::default() }));
            bytes
        }),
        case(
            "zip64",
            zip_with(
                &two(),
                &Ends { wide: Some(Wide { records: 2, len: None, offset: None, locator: None }), ..Ends::default() },
            ),
        ),
        case("zip with data descriptors", zip(&[Entry { descriptor: true, ..deflated("a", "1") }, deflated("b", "2")])),
        case("empty zip", zip(&[])),
        case("tar", two_in_tar()),
        case("tar.gz", gz(&two_in_tar())),
        case("tar.bz2", bz2(&two_in_tar())),
        case("gz", gz(b"1")),
        case("gz with a name", gz_named(b"n\xe4me", b"1")),
        case("bz2", bz2(b"1")),
        case("gz members in a row", [gz(b"1"), gz(b"2"), gz(b"")].concat()),
        case("tar over two gz members", {
            let bytes = two_in_tar();
            [gz(&bytes[..700]), gz(&bytes[700..])].concat()
        }),
        case("bz2 streams in a row", [bz2(b"1"), bz2(b"2")].concat()),
        case("gz with something behind it", [gz(b"1"), b"garbage".to_vec()].concat()),
        case("tars in a row", [two_in_tar(), tar(&[tar_entry("c", b'0', "3")])].concat()),
        case("tar with something behind it", [two_in_tar(), b"garbage".repeat(100)].concat()),
        case("7z", b"7z\xbc\xaf\x27\x1c\0\x04".repeat(10)),
    ]
}

fn bombs() -> Vec<Case> {
    let zeros = vec![0; 1 << 20];
    let piece = gz(&zeros);
    let kernel = zip(&[deflated("x", &zeros)]);
    let many: Vec<Entry> = (0..2000).map(|at| entry(format!("f{at}"), "")).collect();
    vec![
        case("gz of zeros", piece.repeat(64)),
        case("tar.gz with 64 MiB of zeros behind its end", [gz(&two_in_tar()), piece.repeat(64)].concat()),
        case("bz2 of zeros", bz2(&vec![0; 3 << 20])),
        case("zip of zeros", zip(&(0..64).map(|at| deflated(format!("f{at}"), &zeros)).collect::<Vec<_>>())),
        case("zip of bzip2 zeros", zip(&[Entry { method: 12, ..entry("a", vec![0; 3 << 20]) }])),
        case(
            "tar with more than the total, stored",
            tar(&(0..40_u8).map(|at| tar_entry([b'a' + at], b'0', vec![at; 1 << 20])).collect::<Vec<_>>()),
        ),
        case("entries at one offset", {
            let mut entries = vec![deflated("a", &zeros)];
            entries.extend((0..500).map(|at| Entry {
                offset: Some(0),
                local_name: Some(b"z".to_vec()),
                ..deflated(format!("f{at}"), &zeros)
            }));
            // Only the first has bytes of its own.
            one_body(&entries)
        }),
        case("entries that quote the next one's header", overlapping()),
        case(
            "two entries at one offset",
            one_body(&[deflated("a", "1"), Entry { offset: Some(0), ..deflated("a", "1") }]),
        ),
        case("an entry inside another's bytes", {
            let inner = zip_with(&[entry("b", "2")], &Ends { no_directory: true, ..Ends::default() });
            let data = [&b"text "[..], &inner].concat();
            let (first, second) = (entry("a", &data), Entry { offset: Some(31 + 5), ..entry("b", "2") });
            let alone = zip_with(std::slice::from_ref(&first), &Ends { no_directory: true, ..Ends::default() });
            directory_of(&[first, second], alone)
        }),
        case("many members in a zip", zip(&many)),
        case(
            "many members in a tar.gz",
            gz(&tar(&(0..2000).map(|at| tar_entry(format!("f{at}"), b'0', "")).collect::<Vec<_>>())),
        ),
        case(
            "many directories and one file",
            gz(&tar(&(0..3000)
                .map(|at| tar_entry(format!("d{at}"), b'5', ""))
                .chain([tar_entry("a", b'0', "1")])
                .collect::<Vec<_>>())),
        ),
        case("bombs in a zip", zip(&(0..40).map(|at| entry(format!("{at}.zip"), &kernel)).collect::<Vec<_>>())),
        case("one member too large", zip(&[deflated("big", vec![7; (1 << 20) + 1]), deflated("a", "1")])),
        case(
            "25 members too large",
            tar(&(0..25).map(|at| tar_entry(format!("f{at}"), b'0', vec![at; (1 << 20) + 1])).collect::<Vec<_>>()),
        ),
        case("gz too large", gz(&vec![7; (1 << 20) + 1])),
        case("member as large as it may be", zip(&[entry("a", vec![7; 1 << 20])])),
        case("sparse file of zeros", tar(&[sparse_header("s", 0, 1 << 20, &[])])),
        case("sparse file above the limit", tar(&[sparse_header("s", 0, 1 << 40, &[]), tar_entry("a", b'0', "1")])),
        case(
            "sparse bombs",
            gz(&tar(&(0..200).map(|at| sparse_header(&format!("s{at}"), 0, 1 << 20, &[])).collect::<Vec<_>>())),
        ),
    ]
}

/// `bodies`, and a directory of `entries` behind them.
fn directory_of(entries: &[Entry], bodies: Vec<u8>) -> Vec<u8> {
    let all = zip(entries);
    let own = zip_with(entries, &Ends { no_directory: true, ..Ends::default() }).len();
    let directory = &all[own..all.len() - 22];
    let (count, len, offset) = (entries.len() as u16, directory.len() as u32, bodies.len() as u32);
    let counts = [count.to_le_bytes(), count.to_le_bytes()].concat();
    let places = [len.to_le_bytes(), offset.to_le_bytes()].concat();
    [&bodies[..], directory, b"PK\x05\x06\0\0\0\0", &counts, &places, &[0, 0]].concat()
}

/// A directory of `entries`, all of them at the first one's bytes.
fn one_body(entries: &[Entry]) -> Vec<u8> {
    directory_of(entries, zip_with(&entries[..1], &Ends { no_directory: true, ..Ends::default() }))
}

/// Each entry's stored bytes hold the headers and bytes of all that follow.
fn overlapping() -> Vec<u8> {
    let (mut body, mut heads) = (Vec::new(), Vec::new());
    for at in (0..100_u32).rev() {
        let name = format!("f{at:03}");
        let data = if body.is_empty() { vec![b'x'; 1000] } else { body.clone() };
        let alone = zip_with(&[entry(&name, &data)], &Ends { no_directory: true, ..Ends::default() });
        heads.push((name, data));
        body = alone;
    }
    let total = body.len();
    let entries: Vec<Entry> = heads
        .into_iter()
        .rev()
        .map(|(name, data)| Entry { offset: Some((total - data.len() - 34) as u32), ..entry(name, data) })
        .collect();
    directory_of(&entries, body)
}

/// An old GNU sparse entry: its stored bytes, its length, the map.
fn sparse_header(name: &str, stored: usize, real: u64, map: &[(u64, u64)]) -> Vec<u8> {
    header_with(name.as_bytes(), format!("{stored:011o}").as_bytes(), b'S', |block| {
        block[257..265].copy_from_slice(b"ustar  \0");
        for (at, (place, len)) in map.iter().enumerate() {
            let pair = format!("{place:011o}\0{len:011o}\0");
            block[386 + 24 * at..386 + 24 * (at + 1)].copy_from_slice(pair.as_bytes());
        }
        let mut real_size = [0; 12];
        real_size[0] = 0x80;
        real_size[4..].copy_from_slice(&real.to_be_bytes());
        block[483..495].copy_from_slice(&real_size);
    })
}

fn nested() -> Vec<Case> {
    let deep =
        |wrap: &dyn Fn(Vec<u8>) -> Vec<u8>, levels: usize| (0..levels).fold(b"1".to_vec(), |inner, _| wrap(inner));
    let in_zip = |inner: Vec<u8>| zip(&[deflated("a.zip", inner)]);
    vec![
        case("tar.gz in zip in tar", tar(&[tar_entry("x/z.zip", b'0', zip(&[deflated("t.tgz", gz(&two_in_tar()))]))])),
        case("four zips, three inside", deep(&in_zip, 4)),
        case("twenty zips, as in one that holds itself", deep(&in_zip, 20)),
        case("twenty gz, as in one that holds itself", deep(&|inner| gz(&inner), 20)),
        case("a nested unsafe path taints its members", zip(&[entry("../i.zip", zip(&two()))])),
        case("inner archive corrupt, the rest goes on", {
            let inner = zip(&two());
            zip(&[entry("i.zip", &inner[..inner.len() - 30]), entry("c", "3")])
        }),
    ]
}

fn aes(mode: AesMode, password: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        writer.start_file(*name, options.with_aes_encryption(mode, password)).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn encrypted() -> Vec<Case> {
    let zc = |password| {
        vec![
            Entry { zipcrypto: Some(password), ..deflated("a", "1") },
            Entry { zipcrypto: Some(password), ..entry("b", "2") },
        ]
    };
    let both: &[(&str, &str)] = &[("a", "1"), ("b", "2")];
    let words = &["password", "infected"];
    vec![
        locked("ZipCrypto, first password", zip(&zc("password")), words),
        locked("ZipCrypto, second password", zip(&zc("infected")), words),
        locked("ZipCrypto, none", zip(&zc("secret")), words),
        locked("ZipCrypto, no passwords", zip(&zc("secret")), &[]),
        locked(
            "ZipCrypto with a data descriptor",
            zip(&[Entry { zipcrypto: Some("infected"), descriptor: true, ..deflated("a", "1") }]),
            words,
        ),
        locked("AES-128, first password", aes(AesMode::Aes128, "password", both), words),
        locked("AES-192, second password", aes(AesMode::Aes192, "infected", both), words),
        locked("AES-256, second password", aes(AesMode::Aes256, "infected", both), words),
        locked("AES-256, none", aes(AesMode::Aes256, "secret", both), words),
        locked(
            "a password for each",
            zip(&[
                Entry { zipcrypto: Some("infected"), ..deflated("a", "1") },
                Entry { zipcrypto: Some("password"), ..deflated("b", "2") },
            ]),
            words,
        ),
        locked(
            "encrypted beside plain",
            zip(&[Entry { zipcrypto: Some("secret"), ..deflated("a", "1") }, deflated("b", "2")]),
            words,
        ),
        locked(
            "ZipCrypto cut in its head",
            zip(&[Entry { zipcrypto: Some("password"), packed_size: Some(5), ..entry("a", "1") }]),
            words,
        ),
        locked(
            "AES with changed bytes",
            {
                let mut bytes = aes(AesMode::Aes256, "infected", &[("a", "text that is long enough")]);
                let end = bytes.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
                bytes[end - 1] ^= 1;
                bytes
            },
            words,
        ),
        locked(
            "AES cut in its salt",
            zip(&[Entry {
                flags: 1,
                method: 99,
                extra: b"\x01\x99\x07\0\x02\0AE\x03\x08\0".to_vec(),
                packed: Some(b"short".to_vec()),
                ..entry("a", "1")
            }]),
            words,
        ),
        locked(
            "AES field of unknown strength",
            zip(&[Entry {
                flags: 1,
                method: 99,
                extra: b"\x01\x99\x07\0\x02\0AE\x09\x08\0".to_vec(),
                ..entry("a", "1")
            }]),
            words,
        ),
        locked("strong encryption", zip(&[Entry { flags: 0x41, ..entry("a", "1") }]), words),
        locked(
            "bomb under a password",
            zip(&(0..64)
                .map(|at| Entry { zipcrypto: Some("infected"), ..deflated(format!("f{at}"), vec![0; 1 << 20]) })
                .collect::<Vec<_>>()),
            words,
        ),
    ]
}

fn cut_off() -> Vec<Case> {
    let whole = zip(&[deflated("a", "1"), deflated("b", "2".repeat(1000)), deflated("c", "3")]);
    let cut = |bytes: &[u8], from_end: usize| bytes[..bytes.len() - from_end].to_vec();
    let tar_bytes = tar(&[tar_entry("a", b'0', "1"), tar_entry("b", b'0', [b'2'; 1000])]);
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..100_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let long = gz(&noise);
    vec![
        case("zip without its end record", cut(&whole, 22)),
        case("zip cut in its end record", cut(&whole, 5)),
        case("zip cut in its directory", cut(&whole, 60)),
        case("zip cut in a local header", whole[..40].to_vec()),
        case(
            "zip cut in the data",
            zip_with(&[entry("a", "1"), entry("b", [b'2'; 100])], &Ends { no_directory: true, ..Ends::default() })
                [..100]
                .to_vec(),
        ),
        case("zip of four bytes", b"PK\x03\x04".to_vec()),
        case(
            "streamed zip without its directory",
            zip_with(
                &[Entry { descriptor: true, ..deflated("a", "1") }, Entry { descriptor: true, ..entry("b", "2") }],
                &Ends { no_directory: true, ..Ends::default() },
            ),
        ),
        case("tar without its end", cut(&tar_bytes, 1024)),
        case("tar cut in the data", tar_bytes[..1536 + 100].to_vec()),
        case("tar cut in a header", tar_bytes[..1024 + 100].to_vec()),
        case(
            "tar.gz cut in the data",
            cut(&gz(&tar(&[tar_entry("a", b'0', "1"), tar_entry("b", b'0', &noise)])), 30_000),
        ),
        case("gz cut in its data", cut(&long, 1000)),
        case("gz cut in its trailer", cut(&long, 3)),
        case("gz cut in its header", long[..8].to_vec()),
        case("gz with an endless name", [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3][..], &[b'n'; 100_000]].concat()),
        case("gz with another checksum", {
            let mut bytes = gz(b"1");
            let at = bytes.len() - 8;
            bytes[at] ^= 1;
            bytes
        }),
        case("gz with another length", {
            let mut bytes = gz(b"1");
            let at = bytes.len() - 4;
            bytes[at] ^= 1;
            bytes
        }),
        case("bz2 cut", cut(&bz2(&noise), 100)),
        case("bz2 with a changed byte", {
            let mut bytes = bz2(&noise);
            bytes[5000] ^= 0x10;
            bytes
        }),
        case(
            "deflate that is none",
            zip(&[Entry { packed: Some(vec![0xff; 50]), ..deflated("a", "1") }, deflated("b", "2")]),
        ),
        case(
            "deflate cut short",
            zip(&[
                Entry { packed: Some(deflate(&noise)[..5000].to_vec()), ..deflated("a", &noise) },
                deflated("b", "2"),
            ]),
        ),
    ]
}

fn zip_lies() -> Vec<Case> {
    let counts = |records| zip_with(&two(), &Ends { records: Some(records), ..Ends::default() });
    let inner = zip(&[entry("fake", "9")]);
    vec![
        case("another checksum", zip(&[Entry { crc: Some(1), ..deflated("a", "1") }, deflated("b", "2")])),
        case("claims less than there is", zip(&[Entry { size: Some(1), ..deflated("a", "12345") }])),
        case("claims more than there is", zip(&[Entry { size: Some(500), ..deflated("a", "1") }])),
        case("claims 4 GiB in ten bytes", zip(&[Entry { size: Some(u32::MAX - 1), ..deflated("a", "1") }])),
        case("packed beyond the file", zip(&[Entry { packed_size: Some(u32::MAX - 1), ..entry("a", "1") }])),
        case("fewer entries than counted", counts(60_000)),
        case("more entries than counted", counts(1)),
        case("no entries counted", counts(0)),
        case("directory length lies", zip_with(&two(), &Ends { len: Some(7), ..Ends::default() })),
        case("directory offset lies", zip_with(&two(), &Ends { offset: Some(3), ..Ends::default() })),
        case("both lie", zip_with(&two(), &Ends { len: Some(7), offset: Some(3), ..Ends::default() })),
        case(
            "zip64 counts 2^60 entries",
            zip_with(
                &two(),
                &Ends {
                    wide: Some(Wide { records: 1 << 60, len: None, offset: None, locator: None }),
                    ..Ends::default()
                },
            ),
        ),
        case(
            "zip64 length lies",
            zip_with(
                &two(),
                &Ends {
                    wide: Some(Wide { records: 2, len: Some(u64::MAX), offset: None, locator: None }),
                    ..Ends::default()
                },
            ),
        ),
        case(
            "zip64 offset lies",
            zip_with(
                &two(),
                &Ends {
                    wide: Some(Wide { records: 2, len: Some(u64::MAX), offset: Some(u64::MAX), locator: None }),
                    ..Ends::default()
                },
            ),
        ),
        case(
            "zip64 locator lies",
            zip_with(
                &two(),
                &Ends {
                    wide: Some(Wide { records: 2, len: None, offset: None, locator: Some(1 << 62) }),
                    ..Ends::default()
                },
            ),
        ),
        case(
            "zip64 sizes without their field",
            zip(&[Entry { size: Some(u32::MAX), packed_size: Some(u32::MAX), ..entry("a", "1") }]),
        ),
        case(
            "another name in the local header",
            zip(&[Entry { local_name: Some(b"z".to_vec()), ..deflated("a", "1") }]),
        ),
        case("another method in the local header", zip(&[Entry { local_method: Some(0), ..deflated("a", "1") }])),
        case("no local header", zip(&[Entry { offset: Some(9), ..entry("a", "1") }, deflated("b", "2")])),
        case(
            "unknown methods",
            zip(&[
                Entry { method: 14, ..entry("a", "1") },
                Entry { method: 93, ..entry("b", "2") },
                deflated("c", "3"),
            ]),
        ),
        case(
            "an end record in the comment",
            zip_with(&two(), &Ends { comment: b"PK\x05\x06 and more than twenty bytes".to_vec(), ..Ends::default() }),
        ),
        case("another zip in the comment", zip_with(&two(), &Ends { comment: inner.clone(), ..Ends::default() })),
        case("comment longer than the file", zip_with(&two(), &Ends { comment_len: Some(500), ..Ends::default() })),
        case("a signature behind the end", [zip(&two()), vec![b'x'; 9000]].concat()),
        case("stored zip as last member", zip(&[entry("i.zip", &inner)])),
        case(
            "extra fields beyond their end",
            zip(&[Entry { extra: b"\x01\0\xff\xff1234".to_vec(), ..deflated("a", "1") }]),
        ),
        case("names twice", zip(&[deflated("a", "1"), deflated("a", "2"), deflated("a", "1")])),
        case("a file that is called a directory", zip(&[deflated("d/", "hidden ".repeat(50)), entry("e/", "")])),
    ]
}

fn tar_lies() -> Vec<Case> {
    let sized = |size: &[u8]| [header_with(b"a", size, b'0', |_| {}), padded(b"1"), vec![0; 1024]].concat();
    let after = || tar_entry("b", b'0', "2");
    let long = |kind, len: usize| tar_entry("././@LongLink", kind, vec![b'n'; len]);
    let pax_of = |len: usize| {
        tar_entry(
            "x",
            b'x',
            [format!("{} path=", len + 6 + len.to_string().len() + 2).as_bytes(), &vec![b'p'; len], b"\n"].concat(),
        )
    };
    vec![
        case("a negative size", sized(&[0xff; 12])),
        case("2^70 bytes", sized(&[0x80, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0])),
        case("2^62 bytes", sized(&[0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0])),
        case("8 GiB less one", sized(b"77777777777\0")),
        case("size of letters", sized(b"size size")),
        case("another checksum in a tar", {
            let mut bytes = tar(&[tar_entry("a", b'0', "1"), after()]);
            bytes[1024] ^= 1;
            bytes
        }),
        case("GNU long name of 300 bytes", tar(&[long(b'L', 300), tar_entry("short", b'0', "1")])),
        case("GNU long name of 8 MiB", tar(&[long(b'L', 8 << 20), tar_entry("short", b'0', "1")])),
        case("GNU long name without an entry", tar(&[long(b'L', 300)])),
        case("GNU long link", tar(&[long(b'K', 300), tar_entry("l", b'2', ""), after()])),
        case("pax path over the header's", tar(&[pax(&[("path", "from/pax")]), tar_entry("short", b'0', "1")])),
        case(
            "pax size over the header's",
            tar(&[pax(&[("size", "3")]), header(b"a", 0, b'0'), padded(b"123"), after()]),
        ),
        case("pax size of 2^63", tar(&[pax(&[("size", "9223372036854775808")]), tar_entry("a", b'0', "1")])),
        case("pax header of 8 MiB", tar(&[pax_of(8 << 20), tar_entry("short", b'0', "1")])),
        case(
            "pax records that are none",
            tar(&[tar_entry("x", b'x', "99999 path=a\n"), tar_entry("short", b'0', "1")]),
        ),
        case("pax header without an entry", tar(&[pax(&[("path", "a")])])),
        case(
            "thousands of pax headers",
            gz(&tar(&(0..5000).map(|_| pax(&[("path", "p")])).chain([after()]).collect::<Vec<_>>())),
        ),
        case("global pax header", tar(&[tar_entry("g", b'g', "11 path=xy\n"), tar_entry("a", b'0', "1")])),
        case("sparse file", tar(&[sparse_header("s", 4, 20, &[(2, 2), (10, 2)]), padded(b"abcd"), after()])),
        case(
            "sparse map that goes back",
            tar(&[sparse_header("s", 4, 20, &[(10, 2), (2, 2)]), padded(b"abcd"), after()]),
        ),
        case(
            "sparse map beyond the file",
            tar(&[sparse_header("s", 4, 5, &[(2, 2), (10, 2)]), padded(b"abcd"), after()]),
        ),
        case(
            "sparse file in pax 0.1",
            tar(&[
                pax(&[("GNU.sparse.size", "20"), ("GNU.sparse.map", "2,2,10,2"), ("GNU.sparse.name", "s")]),
                tar_entry("x", b'0', "abcd"),
                after(),
            ]),
        ),
        case(
            "sparse file in pax 1.0",
            tar(&[
                pax(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.realsize", "20"),
                    ("GNU.sparse.name", "s"),
                ]),
                tar_entry("x", b'0', [padded(b"2\n2\n2\n10\n2\n"), b"abcd".to_vec()].concat()),
                after(),
            ]),
        ),
        case(
            "sparse map of 2^60 pieces",
            tar(&[
                pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "20")]),
                tar_entry("x", b'0', padded(b"1152921504606846976\n2\n2\n")),
                after(),
            ]),
        ),
        case("names twice in a tar", tar(&[tar_entry("a", b'0', "1"), tar_entry("a", b'0', "2")])),
        case("links that claim a size", tar(&[header(b"l", 4096, b'2'), after()])),
        case("links with bytes", tar(&[tar_entry("l", b'1', "bytes"), after()])),
        case("a type of its own", tar(&[tar_entry("a", b'Z', "1")])),
        case("V7 tar", {
            let mut block = header_with(b"a", b"00000000001", 0, |block| block[257..265].fill(0));
            block.extend(padded(b"1"));
            tar(&[block])
        }),
    ]
}

fn names() -> Vec<Case> {
    let in_zip = |name: &[u8], flags| zip(&[Entry { flags, ..entry(name, "1") }]);
    let in_tar = |name: &[u8]| tar(&[tar_entry(name, b'0', "1")]);
    let unicode = |sum: u32| [&b"\x75\x70\x07\0\x01"[..], &sum.to_le_bytes(), "ä".as_bytes()].concat();
    vec![
        case("zip: ../", in_zip(b"../../etc/passwd", 0)),
        case("zip: absolute", in_zip(b"/etc/passwd", 0)),
        case("zip: drive", in_zip(b"C:\\a", 0)),
        case("zip: backslashes", in_zip(b"d\\..\\a", 0)),
        case("zip: NUL", in_zip(b"a.txt\0.exe", 0)),
        case("zip: code page 437", in_zip(b"\x84\xff", 0)),
        case("zip: UTF-8", in_zip("ä".as_bytes(), 0x800)),
        case("zip: bad UTF-8", in_zip(b"\xff\xfe", 0x800)),
        case("zip: Unicode path", zip(&[Entry { extra: unicode(super::build::crc32(b"x")), ..entry("x", "1") }])),
        case("zip: Unicode path of another name", zip(&[Entry { extra: unicode(1), ..entry("x", "1") }])),
        case("zip: no name", in_zip(b"", 0)),
        case("zip: 65535 bytes", in_zip(&[b'n'; 65535], 0)),
        case("tar: ../", in_tar(b"../../etc/passwd")),
        case("tar: absolute", in_tar(b"/etc/passwd")),
        case("tar: ./", in_tar(b"./d/a")),
        case("tar: bad UTF-8", in_tar(b"\xff\xfe")),
        case("gz: ../", gz_named(b"../../a", b"1")),
    ]
}

fn no_files() -> Vec<Case> {
    let unix = |name: &str, mode: u32, data: &str| Entry { made_by: 3, attributes: mode << 16, ..entry(name, data) };
    vec![
        case(
            "links, devices and directories in a tar",
            tar(&[
                tar_entry("hard", b'1', ""),
                tar_entry("soft", b'2', ""),
                tar_entry("char", b'3', ""),
                tar_entry("block", b'4', ""),
                tar_entry("dir", b'5', ""),
                tar_entry("pipe", b'6', ""),
                tar_entry("old/", b'0', ""),
                tar_entry("a", b'0', "1"),
            ]),
        ),
        case(
            "links, devices and directories in a zip",
            zip(&[
                unix("soft", 0o120_777, "/etc/passwd"),
                unix("pipe", 0o010_644, ""),
                unix("dev", 0o020_644, ""),
                unix("dir/", 0o040_755, ""),
                unix("a", 0o100_644, "1"),
            ]),
        ),
    ]
}
