//! A Kafka client over one socket: what it sends can be chosen byte by byte, what it gets is read to the last byte.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use azulite::kafka::codec::header::{read_response, request_frame};
use azulite::kafka::codec::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use azulite::kafka::codec::messages::delete_topics::DeleteTopicsRequest;
use azulite::kafka::codec::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use azulite::kafka::codec::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use azulite::kafka::codec::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use azulite::kafka::codec::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use azulite::kafka::codec::{Records, RequestMessage, Str, Uuid};
use azulite::kafka::error::ErrorCode;
use azulite_storage::BatchBuilder;
use bytes::Bytes;

use crate::support::{Config, PATIENCE, Server};

/// A server with a Kafka port.
pub(crate) fn start() -> Server {
    Server::with(&Config::with_kafka())
}

/// A server that will be given what no client should send.
pub(crate) fn start_for_hostile() -> Server {
    let mut server = start();
    server.announce("a Kafka connection was closed");
    server
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    next: i32,
    client_id: Option<Str>,
}

impl Wire {
    pub(crate) fn to(server: &Server) -> Wire {
        Wire::at(server.kafka_address())
    }

    pub(crate) fn at(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire { stream, next: 100, client_id: Some("test".into()) }
    }

    /// Says no client id from now on.
    pub(crate) fn nameless(mut self) -> Wire {
        self.client_id = None;
        self
    }

    /// Sends a request; the correlation id its answer will have.
    pub(crate) fn send<R: RequestMessage>(&mut self, request: &R, version: i16) -> i32 {
        self.next += 1;
        let frame = request_frame(request, version, self.next, self.client_id.clone()).expect("it can be said");
        self.raw(&frame.into_bytes());
        self.next
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes).expect("send");
    }

    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    pub(crate) fn patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// The next frame without its length.
    pub(crate) fn frame(&mut self) -> io::Result<Bytes> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let mut bytes = vec![0; usize::try_from(i32::from_be_bytes(len)).expect("a length")];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }

    /// The answer to the request with this id, which must be the next one.
    pub(crate) fn answer<R: RequestMessage>(&mut self, id: i32, version: i16) -> R::Response {
        let frame = self.frame().unwrap_or_else(|e| panic!("no answer to {} version {version}: {e}", R::NAME));
        let (got, response) = read_response::<R>(frame, version).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(got, id, "answers come in the order of the requests");
        response
    }

    pub(crate) fn ask<R: RequestMessage>(&mut self, request: &R, version: i16) -> R::Response {
        let id = self.send(request, version);
        self.answer::<R>(id, version)
    }

    /// True when the server closes the connection without a further byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(0) => true,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
            Ok(_) => false,
        }
    }

    /// Makes a topic.
    pub(crate) fn create(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: (*name).to_owned().into(),
            value: Some((*value).to_owned().into()),
        };
        let topic = CreatableTopic {
            name: name.to_owned().into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let made = self.ask(&CreateTopicsRequest { topics: vec![topic], ..Default::default() }, 7);
        assert_eq!(made.topics[0].error_code, ErrorCode::None, "{made:?}");
        made.topics[0].topic_id
    }

    pub(crate) fn delete(&mut self, name: &str) -> ErrorCode {
        let request = DeleteTopicsRequest { topic_names: vec![name.to_owned().into()], ..Default::default() };
        self.ask(&request, 5).responses[0].error_code
    }

    pub(crate) fn metadata(&mut self, names: &[&str]) -> Vec<(ErrorCode, Uuid, usize)> {
        let topic = |name: &&str| MetadataRequestTopic { name: Some((*name).to_owned().into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(names.iter().map(topic).collect()), ..Default::default() };
        let topics = self.ask(&request, 12).topics;
        topics.iter().map(|topic| (topic.error_code, topic.topic_id, topic.partitions.len())).collect()
    }

    /// Appends one batch to partition 0 with all acknowledgements.
    pub(crate) fn produce(&mut self, topic: &str, records: Bytes) -> PartitionProduceResponse {
        only(self.ask(&produce(topic, 0, records, -1), 9))
    }

    pub(crate) fn end(&mut self, topic: &str) -> i64 {
        let partition = ListOffsetsPartition { timestamp: -1, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: topic.to_owned().into(), partitions: vec![partition] }];
        let answer = self.ask(&ListOffsetsRequest { topics, ..Default::default() }, 5);
        assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::None, "{answer:?}");
        answer.topics[0].partitions[0].offset
    }

    /// Fetches from partition 0 without waiting.
    pub(crate) fn fetch(&mut self, topic: &str, from: i64) -> PartitionData {
        let mut answer = self.ask(&fetch(topic, 0, from), 11);
        answer.responses.remove(0).partitions.remove(0)
    }

    /// Values of all records from an offset on.
    pub(crate) fn values(&mut self, topic: &str, from: i64) -> Vec<Vec<u8>> {
        values(&self.fetch(topic, from)).into_iter().filter(|(offset, _)| *offset >= from).map(|(_, v)| v).collect()
    }
}

/// A batch of these values, with the key `k`.
pub(crate) fn batch(values: &[&[u8]]) -> Bytes {
    let mut batch = BatchBuilder::default();
    let now_ms = azulite_storage::clock::now_ms();
    values.iter().for_each(|value| batch.push(now_ms, Some(b"k"), Some(value)));
    Bytes::copy_from_slice(batch.build().unwrap().as_bytes())
}

/// A batch of one value of `len` bytes that do not repeat much.
pub(crate) fn large(len: usize) -> Bytes {
    let value: Vec<u8> = (0..len).map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 13 & 0xff).unwrap()).collect();
    batch(&[&value])
}

pub(crate) fn produce(topic: &str, index: i32, records: Bytes, acks: i16) -> ProduceRequest {
    let partition_data = vec![PartitionProduceData { index, records: Some(Records::from(vec![records])) }];
    let topic_data = vec![TopicProduceData { name: topic.to_owned().into(), partition_data, ..Default::default() }];
    ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..Default::default() }
}

pub(crate) fn only(mut answer: ProduceResponse) -> PartitionProduceResponse {
    assert_eq!((answer.responses.len(), answer.responses[0].partition_responses.len()), (1, 1), "{answer:?}");
    answer.responses.remove(0).partition_responses.remove(0)
}

pub(crate) fn fetch(topic: &str, partition: i32, fetch_offset: i64) -> FetchRequest {
    let partitions =
        vec![FetchPartition { partition, fetch_offset, partition_max_bytes: 64 << 20, ..Default::default() }];
    let topics = vec![FetchTopic { topic: topic.to_owned().into(), partitions, ..Default::default() }];
    FetchRequest { min_bytes: 1, max_bytes: 64 << 20, topics, ..Default::default() }
}

/// Offsets and values of all records of an answer.
pub(crate) fn values(data: &PartitionData) -> Vec<(i64, Vec<u8>)> {
    let mut values = Vec::new();
    let mut rest = data.records.as_ref().map(Records::to_bytes).unwrap_or_default();
    while !rest.is_empty() {
        let len = 12 + usize::try_from(i32::from_be_bytes(rest[8..12].try_into().unwrap())).unwrap();
        assert!(len <= rest.len(), "batches are whole");
        let records = azulite_storage::Records::of(&rest.split_to(len)).unwrap();
        values.extend(records.map(Result::unwrap).map(|r| (r.offset, r.value.unwrap_or_default().to_vec())));
    }
    values
}
