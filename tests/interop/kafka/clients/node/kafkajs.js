// kafkajs: never a flexible version, and takes min(its best, the broker's maximum) whatever the broker's minimum is.
//
// Called as `node kafkajs.js <bootstrap> <case>`; the last line on stdout is {"ok": ..., "detail": ...}.
'use strict';
const assert = require('node:assert/strict');
const { Kafka, CompressionTypes, ConfigResourceTypes, logLevel } = require('kafkajs');

const [bootstrap, name] = process.argv.slice(2);
const kafka = new Kafka({ clientId: 'interop', brokers: [bootstrap], logLevel: logLevel.ERROR, logCreator: () => ({ log }) => console.error(log.message, log.error || '') });

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function eventually(probe, seconds, what) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await sleep(50);
  }
}

async function withAdmin(work) {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
}

async function create(topic, numPartitions = 1, configEntries = []) {
  await withAdmin((admin) => admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: 1, configEntries }] }));
}

/** Reads `count` records in a group, commits them and leaves. */
async function consume(topic, groupId, count, eachBatchSeconds = 30) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, heartbeatInterval: 1000 });
  const rows = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommitThreshold: 1,
    eachMessage: async ({ partition, message }) => {
      rows.push({ partition, offset: Number(message.offset), value: message.value && message.value.toString(), key: message.key && message.key.toString(), headers: message.headers });
    },
  });
  await eventually(() => rows.length >= count, eachBatchSeconds, `${count} records`);
  await consumer.disconnect();
  return rows;
}

const cases = {
  async 'produce-and-consume'() {
    const topic = 'kjs-basic';
    await create(topic, 3);
    const producer = kafka.producer();
    await producer.connect();
    const messages = Array.from({ length: 1000 }, (_, number) => ({ key: `k${number}`, value: `v${number}`, headers: { h: `${number}` } }));
    await producer.send({ topic, messages });
    await producer.disconnect();
    const rows = await consume(topic, 'kjs-basic', 1000);
    assert.equal(new Set(rows.map((row) => row.value)).size, 1000, 'distinct values');
    assert.equal(rows.length, 1000);
    assert.ok(rows.every((row) => row.headers.h.toString() === row.value.slice(1)), 'headers');
    await withAdmin(async (admin) => {
      const offsets = await admin.fetchTopicOffsets(topic);
      assert.equal(offsets.reduce((sum, entry) => sum + Number(entry.high), 0), 1000, 'sum of the high watermarks');
      assert.ok(offsets.every((entry) => entry.low === '0'), 'low offsets');
      const [group] = await admin.fetchOffsets({ groupId: 'kjs-basic', topics: [topic] });
      const committed = group.partitions.reduce((sum, entry) => sum + Number(entry.offset), 0);
      assert.equal(committed, 1000, 'sum of the committed offsets');
    });
  },

  async 'gzip-and-idempotent'() {
    const topic = 'kjs-gzip';
    await create(topic);
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    for (let part = 0; part < 20; part += 1) {
      await producer.send({ topic, compression: CompressionTypes.GZIP, messages: Array.from({ length: 50 }, (_, number) => ({ value: `${part * 50 + number}` })) });
    }
    await producer.disconnect();
    const rows = await consume(topic, 'kjs-gzip', 1000);
    assert.deepEqual(rows.map((row) => row.offset), rows.map((_, number) => number), 'offsets');
    assert.deepEqual(rows.map((row) => row.value), rows.map((_, number) => `${number}`), 'values');
  },

  async 'alter-configs-replaces'() {
    const topic = 'kjs-configs';
    await create(topic, 1, [{ name: 'retention.ms', value: '1000000' }, { name: 'delete.retention.ms', value: '100000' }]);
    await withAdmin(async (admin) => {
      const read = async () => {
        const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] });
        return Object.fromEntries(resources[0].configEntries.map((entry) => [entry.configName, entry]));
      };
      assert.equal((await read())['delete.retention.ms'].configValue, '100000');
      await admin.alterConfigs({ validateOnly: true, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '3000000' }] }] });
      assert.equal((await read())['retention.ms'].configValue, '1000000', 'validateOnly changed something');
      await admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '2000000' }] }] });
      const after = await read();
      assert.equal(after['retention.ms'].configValue, '2000000');
      assert.equal(after['delete.retention.ms'].isDefault, true, 'what is not named returns to its default');
      assert.equal(after['delete.retention.ms'].configValue, '86400000');
    });
  },

  async 'admin'() {
    await withAdmin(async (admin) => {
      const topic = 'kjs-admin';
      assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions: 2, replicationFactor: 1 }] }), true);
      assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions: 2, replicationFactor: 1 }] }), false, 'made twice');
      await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] });
      const metadata = await eventually(async () => {
        const found = await admin.fetchTopicMetadata({ topics: [topic] });
        return found.topics[0].partitions.length === 4 && found;
      }, 5, 'four partitions');
      assert.ok(metadata.topics[0].partitions.every((entry) => entry.leader === 1));
      const producer = kafka.producer();
      await producer.connect();
      await producer.send({ topic, messages: Array.from({ length: 10 }, () => ({ value: 'x', partition: 0 })) });
      await producer.disconnect();
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '5' }] });
      const offsets = await admin.fetchTopicOffsets(topic);
      assert.equal(offsets.find((entry) => entry.partition === 0).low, '5', 'log start');
      const cluster = await admin.describeCluster();
      assert.deepEqual(cluster.brokers.map((broker) => `${broker.nodeId} ${broker.host}:${broker.port}`), [`1 ${bootstrap}`]);
      assert.equal(cluster.controller, 1);
      await consume(topic, 'kjs-admin', 5);
      const { groups } = await admin.listGroups();
      assert.ok(groups.some((group) => group.groupId === 'kjs-admin'), 'the group is listed');
      const described = await admin.describeGroups(['kjs-admin']);
      assert.equal(described.groups[0].state, 'Empty');
      await admin.setOffsets({ groupId: 'kjs-admin', topic, partitions: [{ partition: 0, offset: '7' }] });
      const [fetched] = await admin.fetchOffsets({ groupId: 'kjs-admin', topics: [topic] });
      assert.equal(fetched.partitions.find((entry) => entry.partition === 0).offset, '7');
      const deleted = await admin.deleteGroups(['kjs-admin']);
      assert.equal(deleted[0].errorCode || 0, 0);
      await admin.deleteTopics({ topics: [topic] });
      await eventually(async () => !(await admin.listTopics()).includes(topic), 5, 'the topic goes');
    });
  },

  /** One connection carries fetch and heartbeat: a long-poll must not cost the member its session. */
  async 'long-poll-and-heartbeat'() {
    const topic = 'kjs-poll';
    await create(topic, 2);
    const members = [0, 1].map(() => kafka.consumer({ groupId: 'kjs-poll', sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 3000, minBytes: 1000000 }));
    let joins = 0;
    for (const member of members) {
      member.on(member.events.GROUP_JOIN, () => { joins += 1; });
      await member.connect();
      await member.subscribe({ topic, fromBeginning: true });
      await member.run({ eachMessage: async () => {} });
    }
    await sleep(6000);
    const settled = joins;
    await sleep(9000);
    assert.equal(joins, settled, 'a member lost its session while it waited for data');
    for (const member of members) await member.disconnect();
    return `${settled} joins, all at the beginning`;
  },
};

(async () => {
  let answer;
  try {
    answer = { ok: true, detail: (await cases[name]()) || '' };
  } catch (error) {
    console.error(error);
    answer = { ok: false, detail: `${error.name}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`, () => process.exit(0));
})();
