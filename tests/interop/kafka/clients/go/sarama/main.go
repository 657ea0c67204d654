// Sarama with the settings of the Azul dispatcher: its versions, its requests, its group members.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"azulite.interop/clients/interop"
	"github.com/IBM/sarama"
)

const largest = 3 << 20

func main() {
	interop.Main(map[string]interop.Case{
		"dispatcher-round":         dispatcherRound,
		"topic-lister":             topicLister,
		"waiting-consumer":         waitingConsumer,
		"two-members-share":        twoMembersShare,
		"start-up-runs-twice":      startUpTwice,
		"empty-partition-is-ready": emptyPartition,
	})
}

// config is what the dispatcher sets: everything of it that reaches the wire.
func config(client string) *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V3_0_0_0
	c.ClientID = client
	c.Net.MaxOpenRequests = 1
	c.Producer.RequiredAcks = sarama.WaitForLocal
	c.Producer.Compression = sarama.CompressionLZ4
	c.Producer.Partitioner = sarama.NewHashPartitioner
	c.Producer.MaxMessageBytes = largest + 1<<16
	c.Producer.Return.Successes = true
	c.Producer.Return.Errors = true
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Interval = time.Second
	c.Consumer.Fetch.Default = 500 << 10
	c.Consumer.Fetch.Max = largest + 1<<16
	c.Consumer.Group.Session.Timeout = 10 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 3 * time.Second
	c.Consumer.Group.Rebalance.Timeout = 60 * time.Second
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategySticky()}
	return c
}

// admin talks to the bootstrap broker itself, as the dispatcher does, in fixed versions.
type admin struct{ *sarama.Broker }

func open(bootstrap string) (admin, error) {
	broker := sarama.NewBroker(bootstrap)
	if err := broker.Open(config("saramaAdminClient")); err != nil {
		return admin{}, err
	}
	connected, err := broker.Connected()
	if err == nil && !connected {
		err = errors.New("not connected")
	}
	return admin{broker}, err
}

func text(s string) *string { return &s }

var topicConfig = map[string]*string{
	"cleanup.policy": text("compact"), "retention.ms": text("-1"), "segment.bytes": text("1073741824"),
}

func (a admin) create(topic string, partitions int32, configs map[string]*string) error {
	answer, err := a.CreateTopics(&sarama.CreateTopicsRequest{
		Version: 4, Timeout: 10 * time.Second,
		TopicDetails: map[string]*sarama.TopicDetail{topic: {NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: configs}},
	})
	if err != nil {
		return err
	}
	if found := answer.TopicErrors[topic]; found == nil {
		return fmt.Errorf("no answer for %s", topic)
	} else if found.Err != sarama.ErrNoError {
		return found.Err
	}
	// The dispatcher allows a second and a half between creating a topic and using it.
	return interop.Eventually(1500*time.Millisecond, "a leader for "+topic, func() (bool, error) {
		topics, err := a.topics()
		if err != nil || topics[topic] == nil {
			return false, err
		}
		for _, partition := range topics[topic].Partitions {
			if partition.Err != sarama.ErrNoError {
				return false, partition.Err
			}
		}
		return true, nil
	})
}

func (a admin) topics() (map[string]*sarama.TopicMetadata, error) {
	answer, err := a.GetMetadata(&sarama.MetadataRequest{Version: 10})
	if err != nil {
		return nil, err
	}
	found := map[string]*sarama.TopicMetadata{}
	for _, topic := range answer.Topics {
		if topic.Err != sarama.ErrNoError {
			return nil, topic.Err
		}
		if len(topic.Partitions) == 0 {
			return nil, fmt.Errorf("%s has no partition", topic.Name)
		}
		found[topic.Name] = topic
	}
	return found, nil
}

func (a admin) alter(topic string, configs map[string]*string) error {
	answer, err := a.AlterConfigs(&sarama.AlterConfigsRequest{
		Version: 1, Resources: []*sarama.AlterConfigsResource{{Type: sarama.TopicResource, Name: topic, ConfigEntries: configs}},
	})
	if err != nil {
		return err
	}
	for _, resource := range answer.Resources {
		if resource.ErrorCode != 0 {
			return fmt.Errorf("altering %s: %d %s", resource.Name, resource.ErrorCode, resource.ErrorMsg)
		}
	}
	if len(answer.Resources) != 1 {
		return fmt.Errorf("%d resources in the answer", len(answer.Resources))
	}
	return nil
}

func (a admin) setting(topic, name string) (string, error) {
	answer, err := a.DescribeConfigs(&sarama.DescribeConfigsRequest{
		Version: 2, IncludeSynonyms: true, Resources: []*sarama.ConfigResource{{Type: sarama.TopicResource, Name: topic}},
	})
	if err != nil {
		return "", err
	}
	for _, resource := range answer.Resources {
		for _, entry := range resource.Configs {
			if entry.Name == name {
				return entry.Value, nil
			}
		}
	}
	return "", fmt.Errorf("no %s in the configs of %s", name, topic)
}

func (a admin) grow(topic string, count int32) error {
	answer, err := a.CreatePartitions(&sarama.CreatePartitionsRequest{
		Version: 1, Timeout: 10 * time.Second, TopicPartitions: map[string]*sarama.TopicPartition{topic: {Count: count}},
	})
	if err != nil {
		return err
	}
	found := answer.TopicPartitionErrors[topic]
	if found == nil {
		return fmt.Errorf("no answer for %s", topic)
	}
	if found.Err != sarama.ErrNoError {
		return found.Err
	}
	return nil
}

func (a admin) deleteGroup(group string) error {
	// Retried 5 times 200 ms, as the dispatcher does: a group that was just left may not be empty yet.
	return interop.Eventually(time.Second, "deleting the group", func() (bool, error) {
		answer, err := a.DeleteGroups(&sarama.DeleteGroupsRequest{Groups: []string{group}})
		if err != nil {
			return false, err
		}
		if code := answer.GroupErrorCodes[group]; code != sarama.ErrNoError {
			return false, code
		}
		return true, nil
	})
}

func (a admin) deleteTopic(topic string) error {
	answer, err := a.DeleteTopics(&sarama.DeleteTopicsRequest{Version: 3, Topics: []string{topic}, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	if code, known := answer.TopicErrorCodes[topic]; !known || code != sarama.ErrNoError {
		return fmt.Errorf("deleting %s: %v %v", topic, known, code)
	}
	return nil
}

// member is a group member that hands on what it reads.
type member struct {
	claims   chan []int32
	messages chan *sarama.ConsumerMessage
	group    sarama.ConsumerGroup
	cancel   context.CancelFunc
	done     chan struct{}
	fault    error
}

func join(bootstrap, group, topic string) (*member, error) {
	consumer, err := sarama.NewConsumerGroup([]string{bootstrap}, group, config("saramaConsumer"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{claims: make(chan []int32, 64), messages: make(chan *sarama.ConsumerMessage, 4096), group: consumer, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			if err := consumer.Consume(ctx, []string{topic}, m); err != nil {
				m.fault = err
				return
			}
		}
	}()
	go func() {
		for err := range consumer.Errors() {
			if ctx.Err() == nil {
				m.fault = err
			}
		}
	}()
	return m, nil
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	for _, partitions := range session.Claims() {
		m.claims <- append([]int32{}, partitions...)
	}
	if len(session.Claims()) == 0 {
		m.claims <- nil
	}
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.messages <- message
		session.MarkMessage(message, "")
	}
	return nil
}

func (m *member) leave() error {
	m.cancel()
	<-m.done
	if err := m.group.Close(); err != nil {
		return err
	}
	return m.fault
}

// claimed waits until the member has got count partitions.
func (m *member) claimed(count int) error {
	limit := time.After(10 * time.Second)
	for {
		select {
		case partitions := <-m.claims:
			if len(partitions) == count {
				return nil
			}
		case <-limit:
			return fmt.Errorf("no %d claims within 10 s (%v)", count, m.fault)
		}
	}
}

func (m *member) next(limit time.Duration) (*sarama.ConsumerMessage, error) {
	select {
	case message := <-m.messages:
		return message, nil
	case <-time.After(limit):
		return nil, fmt.Errorf("no message within %v (%v)", limit, m.fault)
	}
}

func dispatcherRound(bootstrap string) (string, error) {
	const topic, group = "azul.test.system.insert", "test-sarama"
	a, err := open(bootstrap)
	if err != nil {
		return "", err
	}
	if err := a.create(topic, 1, topicConfig); err != nil {
		return "", fmt.Errorf("create: %w", err)
	}
	if err := a.create(topic, 1, topicConfig); !errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return "", fmt.Errorf("creating it again: %v", err)
	}
	if err := a.alter(topic, topicConfig); err != nil {
		return "", fmt.Errorf("alter: %w", err)
	}
	if value, err := a.setting(topic, "cleanup.policy"); err != nil || value != "compact" {
		return "", fmt.Errorf("cleanup.policy is %q (%v)", value, err)
	}
	if err := a.grow(topic, 2); err != nil {
		return "", fmt.Errorf("grow: %w", err)
	}
	if err := a.grow(topic, 2); !errors.Is(err, sarama.ErrInvalidPartitions) {
		return "", fmt.Errorf("growing to what it has: %v", err)
	}
	topics, err := a.topics()
	if err != nil || len(topics[topic].Partitions) != 2 || len(topics[topic].Partitions[0].Replicas) != 1 {
		return "", fmt.Errorf("metadata after growing: %+v (%v)", topics[topic], err)
	}
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config("saramaSyncProducer"))
	if err != nil {
		return "", err
	}
	defer producer.Close()
	// LZ4 makes little of it: no byte repeats soon.
	value := make([]byte, largest)
	state := uint32(1)
	for i := range value {
		state = state*1664525 + 1013904223
		value[i] = byte(state >> 24)
	}
	if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder("large"), Value: sarama.ByteEncoder(value)}); err != nil {
		return "", fmt.Errorf("produce 3 MiB: %w", err)
	}
	if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder("large"), Value: nil}); err != nil {
		return "", fmt.Errorf("produce a tombstone: %w", err)
	}
	m, err := join(bootstrap, group, topic)
	if err != nil {
		return "", err
	}
	if err := m.claimed(2); err != nil {
		return "", err
	}
	message, err := m.next(10 * time.Second)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(message.Value, value) {
		return "", fmt.Errorf("3 MiB came back as %d other bytes", len(message.Value))
	}
	if message, err = m.next(5 * time.Second); err != nil || message.Value != nil {
		return "", fmt.Errorf("the tombstone: %v (%v)", message, err)
	}
	if err := m.leave(); err != nil {
		return "", fmt.Errorf("leave: %w", err)
	}
	if err := a.deleteGroup(group); err != nil {
		return "", err
	}
	if err := a.deleteTopic(topic); err != nil {
		return "", err
	}
	return "", a.Close()
}

func topicLister(bootstrap string) (string, error) {
	a, err := open(bootstrap)
	if err != nil {
		return "", err
	}
	if err := a.create("azul.test.lister", 1, topicConfig); err != nil {
		return "", err
	}
	c := sarama.NewConfig() // The lister keeps the library's default version.
	c.ClientID = "saramaListAdmin"
	lister, err := sarama.NewClusterAdmin([]string{bootstrap}, c)
	if err != nil {
		return "", err
	}
	defer lister.Close()
	began := time.Now()
	topics, err := lister.ListTopics()
	if err != nil {
		return "", err
	}
	took := time.Since(began)
	found, known := topics["azul.test.lister"]
	if !known || found.NumPartitions != 1 || found.ReplicationFactor != 1 {
		return "", fmt.Errorf("listed as %+v", found)
	}
	if value := found.ConfigEntries["cleanup.policy"]; value == nil || *value != "compact" {
		return "", fmt.Errorf("its cleanup.policy is listed as %v", value)
	}
	return fmt.Sprintf("%d topics in %v", len(topics), took.Round(time.Millisecond)), nil
}

func waitingConsumer(bootstrap string) (string, error) {
	const topic = "azul.test.waiting"
	a, err := open(bootstrap)
	if err != nil {
		return "", err
	}
	if err := a.create(topic, 1, nil); err != nil {
		return "", err
	}
	m, err := join(bootstrap, "test-waiting", topic)
	if err != nil {
		return "", err
	}
	if err := m.claimed(1); err != nil {
		return "", err
	}
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config("saramaSyncProducer"))
	if err != nil {
		return "", err
	}
	defer producer.Close()
	var slowest time.Duration
	for number := range 20 {
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder("k"), Value: sarama.StringEncoder(fmt.Sprint(number))}); err != nil {
			return "", err
		}
		message, err := m.next(time.Second)
		if err != nil {
			return "", fmt.Errorf("message %d: %w", number, err)
		}
		if string(message.Value) != fmt.Sprint(number) || message.Offset != int64(number) {
			return "", fmt.Errorf("message %d came as %q at %d", number, message.Value, message.Offset)
		}
		slowest = max(slowest, time.Since(began))
	}
	return fmt.Sprintf("slowest %v from send to receipt", slowest.Round(time.Millisecond)), m.leave()
}

func twoMembersShare(bootstrap string) (string, error) {
	const topic = "azul.test.share"
	a, err := open(bootstrap)
	if err != nil {
		return "", err
	}
	if err := a.create(topic, 4, nil); err != nil {
		return "", err
	}
	first, err := join(bootstrap, "test-share", topic)
	if err != nil {
		return "", err
	}
	if err := first.claimed(4); err != nil {
		return "", err
	}
	second, err := join(bootstrap, "test-share", topic)
	if err != nil {
		return "", err
	}
	if err := second.claimed(2); err != nil {
		return "", fmt.Errorf("second member: %w", err)
	}
	if err := first.claimed(2); err != nil {
		return "", fmt.Errorf("first member: %w", err)
	}
	if err := first.leave(); err != nil {
		return "", err
	}
	if err := second.claimed(4); err != nil {
		return "", fmt.Errorf("second member alone: %w", err)
	}
	return "", second.leave()
}

// startUpTwice is what the dispatcher does at every start: list, create what is missing, then alter every topic.
func startUpTwice(bootstrap string) (string, error) {
	var wanted []string
	for _, name := range []string{"insert", "delete", "expedite", "error", "plugin", "status", "download", "retrohunt", "report", "scrape"} {
		wanted = append(wanted, "azul.twice.system."+name)
	}
	for _, name := range []string{"sourced", "extracted", "augmented", "mapped", "enriched"} {
		wanted = append(wanted, "azul.twice.incidents.binary."+name)
	}
	made := 0
	for range 2 {
		a, err := open(bootstrap)
		if err != nil {
			return "", err
		}
		known, err := a.topics()
		if err != nil {
			return "", err
		}
		for _, topic := range wanted {
			if known[topic] == nil {
				if err := a.create(topic, 1, topicConfig); err != nil {
					return "", fmt.Errorf("create %s: %w", topic, err)
				}
				made++
			} else if len(known[topic].Partitions) != 1 || len(known[topic].Partitions[0].Replicas) != 1 {
				return "", fmt.Errorf("%s has changed: %+v", topic, known[topic])
			}
			if err := a.alter(topic, topicConfig); err != nil {
				return "", fmt.Errorf("alter %s: %w", topic, err)
			}
		}
		if err := a.Close(); err != nil {
			return "", err
		}
	}
	if made != len(wanted) {
		return "", fmt.Errorf("%d topics made, wanted %d", made, len(wanted))
	}
	return "", nil
}

func emptyPartition(bootstrap string) (string, error) {
	const topic = "azul.test.empty"
	a, err := open(bootstrap)
	if err != nil {
		return "", err
	}
	if err := a.create(topic, 1, nil); err != nil {
		return "", err
	}
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config("saramaConsumer"))
	if err != nil {
		return "", err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return "", err
	}
	defer partition.Close()
	time.Sleep(1200 * time.Millisecond)
	if mark := partition.HighWaterMarkOffset(); mark != 0 {
		return "", fmt.Errorf("high watermark %d", mark)
	}
	return "", nil
}
