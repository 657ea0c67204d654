//! The table of API keys against the contract and against the oracle.

use kafka_protocol::messages as theirs;

use crate::kafka::codec::ApiKey;

/// Key, lowest and highest version advertised, first flexible version (-1: never).
const CONTRACT: &[(i16, i16, i16, i16)] = &[
    (0, 0, 13, 9),
    (1, 4, 18, 12),
    (2, 1, 10, 6),
    (3, 0, 13, 9),
    (8, 2, 9, 8),
    (9, 1, 9, 6),
    (10, 0, 6, 3),
    (11, 0, 9, 6),
    (12, 0, 4, 4),
    (13, 0, 5, 4),
    (14, 0, 5, 4),
    (15, 0, 6, 5),
    (16, 0, 5, 3),
    (17, 0, 1, -1),
    (18, 0, 4, 3),
    (19, 2, 7, 5),
    (20, 1, 6, 4),
    (21, 0, 2, 2),
    (22, 0, 5, 2),
    (23, 2, 4, 4),
    (24, 0, 3, 3),
    (25, 0, 4, 3),
    (26, 0, 5, 3),
    (28, 0, 5, 3),
    (29, 1, 3, 2),
    (30, 1, 3, 2),
    (31, 1, 3, 2),
    (32, 1, 4, 4),
    (33, 0, 2, 2),
    (35, 1, 4, 2),
    (36, 0, 2, 2),
    (37, 0, 3, 2),
    (42, 0, 2, 2),
    (43, 0, 2, 2),
    (44, 0, 1, 1),
    (46, 0, 0, 0),
    (47, 0, 0, -1),
    (48, 0, 1, 1),
    (49, 0, 1, 1),
    (50, 0, 0, 0),
    (51, 0, 0, 0),
    (60, 0, 2, 0),
    (61, 0, 0, 0),
    (65, 0, 0, 0),
    (66, 0, 2, 0),
    (68, 0, 1, 0),
    (69, 0, 1, 0),
    (74, 0, 1, 0),
    (75, 0, 0, 0),
];

#[test]
fn ranges_are_those_of_the_contract() {
    let ours: Vec<_> = ApiKey::ALL
        .iter()
        .map(|key| (key.code(), key.advertised().0, key.advertised().1, key.first_flexible().unwrap_or(-1)))
        .collect();
    // A first flexible version above the highest declared one cannot be said, so it reads as never.
    let contract: Vec<_> = CONTRACT
        .iter()
        .map(|&(key, min, max, flexible)| (key, min, max, if flexible > max { -1 } else { flexible }))
        .collect();
    assert_eq!(ours, contract);
}

#[test]
fn headers_are_those_of_the_oracle() {
    for &key in ApiKey::ALL {
        let their_key = theirs::ApiKey::try_from(key.code()).unwrap();
        assert_eq!(format!("{their_key:?}"), key.name());
        for version in key.versions().0..=key.versions().1 {
            let ours = (key.request_header_version(version), key.response_header_version(version));
            let theirs = (their_key.request_header_version(version), their_key.response_header_version(version));
            assert_eq!(ours, theirs, "{} {version}", key.name());
        }
    }
}

#[test]
fn keys_and_codes_belong_together() {
    for &key in ApiKey::ALL {
        assert_eq!(ApiKey::from_code(key.code()), Some(key));
        assert!(key.has_version(key.versions().1) && !key.has_version(key.versions().1 + 1));
    }
    assert!(!ApiKey::Produce.has_version(2), "advertised and not served");
}
