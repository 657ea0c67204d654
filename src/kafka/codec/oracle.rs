//! Every message at every version against `kafka-protocol`, an independent implementation of the same schemas.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::messages::consumer_protocol::ConsumerProtocolSubscription;
use super::random::{Random, Rng};
use super::{ApiKey, Message, Reader, Request, Response, Writer};

/// Messages per API, version and direction.
const ROUNDS: u64 = 40;

fn seed() -> u64 {
    std::env::var("AZULITE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0xa2_01e7)
}

fn key_of(key: ApiKey) -> theirs::ApiKey {
    theirs::ApiKey::try_from(key.code()).unwrap_or_else(|()| panic!("{} is unknown to the oracle", key.name()))
}

/// Calls `check` for each API and version with a generator of its own.
fn for_each_version(check: impl Fn(ApiKey, i16, &mut Rng)) {
    for &key in ApiKey::ALL {
        for version in key.versions().0..=key.versions().1 {
            for round in 0..ROUNDS {
                check(key, version, &mut Rng(seed() ^ (round << 32) ^ u64::from(key.code().cast_unsigned()) << 8));
            }
        }
    }
}

fn request_bytes(request: &Request, version: i16) -> Bytes {
    let mut writer = Writer::new();
    request.write(&mut writer, version);
    writer.finish().unwrap().into_bytes()
}

fn response_bytes(response: &Response, version: i16) -> Bytes {
    let mut writer = Writer::new();
    response.write(&mut writer, version);
    writer.finish().unwrap().into_bytes()
}

/// The oracle keeps tagged fields it does not know and writes them again: a wrong tag number would go unnoticed.
fn all_tags_known(read: &impl std::fmt::Debug) -> bool {
    let text = format!("{read:?}");
    let mut maps = text.split("unknown_tagged_fields: ").skip(1);
    maps.all(|map| map.starts_with("{}"))
}

#[test]
fn requests_mean_the_same_to_the_oracle() {
    for_each_version(|key, version, rng| {
        let place = format!("{} request {version}, seed {}", key.name(), rng.0);
        let request = Request::random(key, rng, version);
        let bytes = request_bytes(&request, version);

        let mut rest = bytes.clone();
        let read = theirs::RequestKind::decode(key_of(key), &mut rest, version);
        let read = read.unwrap_or_else(|error| panic!("{place}: oracle: {error}\n{request:?}"));
        assert!(rest.is_empty(), "{place}: the oracle leaves {} bytes\n{request:?}", rest.len());
        assert!(all_tags_known(&read), "{place}: the oracle has no such tag\n{request:?}");
        let mut again = BytesMut::new();
        read.encode(&mut again, version).unwrap_or_else(|error| panic!("{place}: oracle writes: {error}\n{read:?}"));
        assert_eq!(again, bytes, "{place}\n{request:?}\n{read:?}");

        let mut reader = Reader::new(again.freeze());
        assert_eq!(Request::read(key, &mut reader, version).expect(&place), request, "{place}");
        reader.finish().expect(&place);
    });
}

#[test]
fn answers_mean_the_same_to_the_oracle() {
    for_each_version(|key, version, rng| {
        let place = format!("{} response {version}, seed {}", key.name(), rng.0);
        let response = Response::random(key, rng, version);
        let bytes = response_bytes(&response, version);

        let mut rest = bytes.clone();
        let read = theirs::ResponseKind::decode(key_of(key), &mut rest, version);
        let read = read.unwrap_or_else(|error| panic!("{place}: oracle: {error}\n{response:?}"));
        assert!(rest.is_empty(), "{place}: the oracle leaves {} bytes\n{response:?}", rest.len());
        assert!(all_tags_known(&read), "{place}: the oracle has no such tag\n{response:?}");
        let mut again = BytesMut::new();
        read.encode(&mut again, version).unwrap_or_else(|error| panic!("{place}: oracle writes: {error}\n{read:?}"));
        assert_eq!(again, bytes, "{place}\n{response:?}\n{read:?}");

        let mut reader = Reader::new(again.freeze());
        assert_eq!(Response::read(key, &mut reader, version).expect(&place), response, "{place}");
        reader.finish().expect(&place);
    });
}

#[test]
fn consumer_subscriptions_mean_the_same_to_the_oracle() {
    for version in 0..=3 {
        for round in 0..ROUNDS {
            let rng = &mut Rng(seed() ^ round);
            let ours = ConsumerProtocolSubscription::random(rng, ConsumerProtocolSubscription::layout(version));
            let mut writer = Writer::new();
            ours.write(&mut writer, version);
            let bytes = writer.finish().unwrap().into_bytes();
            let theirs = theirs::ConsumerProtocolSubscription::decode(&mut bytes.clone(), version).unwrap();
            let mut again = BytesMut::new();
            theirs.encode(&mut again, version).unwrap();
            assert_eq!(again, bytes);
            assert_eq!(ConsumerProtocolSubscription::read(&mut Reader::new(bytes), version).unwrap(), ours);
        }
    }
}
