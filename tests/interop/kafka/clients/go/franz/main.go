// franz-go: the newest version of every request, by topic id, and many groups that come and go at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"azulite.interop/clients/interop"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

func main() {
	interop.Main(map[string]interop.Case{
		"produce-and-consume":  produceAndConsume,
		"admin":                admin,
		"chained-groups":       chainedGroups,
		"recreated-topic":      recreatedTopic,
		"delete-records-reset": deleteRecordsReset,
	})
}

func within(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), limit)
}

// client of a server, with what every case wants.
func client(bootstrap string, options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.ClientID("franz")}, options...)...)
}

func create(bootstrap, topic string, partitions int32, configs map[string]*string) error {
	cl, err := client(bootstrap)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	answer, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, configs, topic)
	if err != nil {
		return fmt.Errorf("create %s: %w", topic, err)
	}
	if answer.ID == (kadm.TopicID{}) {
		return fmt.Errorf("%s was made without an id", topic)
	}
	return nil
}

// setting is a number that the runner's --set may change.
func setting(name string, otherwise int) int {
	if value, err := strconv.Atoi(os.Getenv("INTEROP_" + strings.ToUpper(name))); err == nil {
		return value
	}
	return otherwise
}

func produceAndConsume(bootstrap string) (string, error) {
	const topic = "franz-basic"
	if err := create(bootstrap, topic, 1, nil); err != nil {
		return "", err
	}
	ctx, cancel := within(40 * time.Second)
	defer cancel()
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for index, codec := range codecs {
		cl, err := client(bootstrap, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec))
		if err != nil {
			return "", err
		}
		var records []*kgo.Record
		for number := range 200 {
			record := kgo.StringRecord(fmt.Sprintf("%d %s", index*200+number, strings.Repeat("z", 100)))
			record.Headers = []kgo.RecordHeader{{Key: "codec", Value: []byte(strconv.Itoa(index))}, {Key: "null"}}
			records = append(records, record)
		}
		err = cl.ProduceSync(ctx, records...).FirstErr()
		cl.Close()
		if err != nil {
			return "", fmt.Errorf("codec %d: %w", index, err)
		}
	}
	cl, err := client(bootstrap, kgo.ConsumeTopics(topic), kgo.ConsumerGroup("franz-basic"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	next := 0
	for next < 1000 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return "", fmt.Errorf("after %d records: %w", next, err)
		}
		for _, record := range fetches.Records() {
			if record.Offset != int64(next) || !strings.HasPrefix(string(record.Value), fmt.Sprintf("%d ", next)) || len(record.Headers) != 2 {
				return "", fmt.Errorf("record %d came as %.20q at %d", next, record.Value, record.Offset)
			}
			next++
		}
	}
	return "", cl.CommitUncommittedOffsets(ctx)
}

func admin(bootstrap string) (string, error) {
	// This kadm does not fill in the topic ids that OffsetCommit 10 asks for.
	cl, err := client(bootstrap, kgo.MaxVersions(kversion.V4_1_0()))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	adm, topic := kadm.NewClient(cl), "franz-admin"
	if _, err := adm.CreateTopic(ctx, 2, 1, map[string]*string{"retention.ms": kadm.StringPtr("1000000")}, topic); err != nil {
		return "", err
	}
	if _, err := adm.CreateTopic(ctx, 2, 1, nil, topic); !errors.Is(err, kerr.TopicAlreadyExists) {
		return "", fmt.Errorf("creating it again: %v", err)
	}
	grown, err := adm.UpdatePartitions(ctx, 4, topic)
	if err != nil {
		return "", err
	}
	if err := grown[topic].Err; err != nil {
		return "", fmt.Errorf("grow: %w", err)
	}
	if err := interop.Eventually(5*time.Second, "four partitions", func() (bool, error) {
		found, err := adm.ListTopics(ctx, topic)
		return err == nil && len(found[topic].Partitions) == 4, err
	}); err != nil {
		return "", err
	}
	altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("2000000")}}, topic)
	if err != nil || altered[0].Err != nil {
		return "", fmt.Errorf("alter: %v %v", err, altered)
	}
	configs, err := adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return "", err
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); err != nil {
		return "", err
	}
	if err := adm.CommitAllOffsets(ctx, "franz-admin", kadm.OffsetsFromRecords(kgo.Record{Topic: topic, Partition: 0, Offset: 0})); err != nil {
		return "", fmt.Errorf("commit without a member: %w", err)
	}
	lags, err := adm.Lag(ctx, "franz-admin")
	if err != nil || lags.Error() != nil {
		return "", fmt.Errorf("lag: %v %v", err, lags.Error())
	}
	groups, err := adm.ListGroups(ctx)
	if err != nil || groups["franz-admin"].State != "Empty" {
		return "", fmt.Errorf("list of groups: %+v (%v)", groups["franz-admin"], err)
	}
	if _, err := adm.DescribeGroups(ctx, "franz-admin"); err != nil {
		return "", err
	}
	if deleted, err := adm.DeleteGroups(ctx, "franz-admin"); err != nil || deleted.Error() != nil {
		return "", fmt.Errorf("delete the group: %v %v", err, deleted.Error())
	}
	if deleted, err := adm.DeleteTopics(ctx, topic); err != nil || deleted.Error() != nil {
		return "", fmt.Errorf("delete the topic: %v %v", err, deleted.Error())
	}
	return fmt.Sprintf("%d configs of a topic", len(configs[0].Configs)), nil
}

// recreatedTopic: a topic made again under its name has another id and starts at offset 0.
func recreatedTopic(bootstrap string) (string, error) {
	const topic = "franz-again"
	cl, err := client(bootstrap)
	if err != nil {
		return "", err
	}
	defer cl.Close()
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	adm, ids := kadm.NewClient(cl), map[kadm.TopicID]bool{}
	for turn := range 3 {
		if err := interop.Eventually(10*time.Second, "the topic can be made", func() (bool, error) {
			answer, err := adm.CreateTopic(ctx, 1, 1, nil, topic)
			ids[answer.ID] = err == nil
			return err == nil, err
		}); err != nil {
			return "", err
		}
		fresh, err := client(bootstrap)
		if err != nil {
			return "", err
		}
		results := fresh.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("x")})
		fresh.Close()
		if err := results.FirstErr(); err != nil {
			return "", fmt.Errorf("turn %d: %w", turn, err)
		}
		if offset := results[0].Record.Offset; offset != 0 {
			return "", fmt.Errorf("turn %d: first offset %d", turn, offset)
		}
		if deleted, err := adm.DeleteTopics(ctx, topic); err != nil || deleted.Error() != nil {
			return "", fmt.Errorf("delete: %v %v", err, deleted.Error())
		}
	}
	delete(ids, kadm.TopicID{})
	if len(ids) != 3 {
		return "", fmt.Errorf("%d ids for 3 topics", len(ids))
	}
	return "", nil
}

// deleteRecordsReset: a consumer at a deleted offset is told so, and goes on at the log start.
func deleteRecordsReset(bootstrap string) (string, error) {
	const topic = "franz-trimmed"
	if err := create(bootstrap, topic, 1, nil); err != nil {
		return "", err
	}
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	cl, err := client(bootstrap, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(0)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	cl.PauseFetchTopics(topic)
	for number := range 10 {
		if err := cl.ProduceSync(ctx, kgo.StringRecord(strconv.Itoa(number))).FirstErr(); err != nil {
			return "", err
		}
	}
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 5, -1)
	if _, err := kadm.NewClient(cl).DeleteRecords(ctx, offsets); err != nil {
		return "", err
	}
	cl.ResumeFetchTopics(topic)
	fetches := cl.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		return "", err
	}
	if first := fetches.Records()[0]; first.Offset != 5 {
		return "", fmt.Errorf("first record at %d", first.Offset)
	}
	return "", nil
}

// stage is one group of the chain: it moves records from one topic to the next, exactly once as long as no member is
// thrown out, because every member commits what it moved before it lets a rebalance happen.
type stage struct {
	bootstrap, group, from, to string
	bounces, reconnects        atomic.Int64
	faults                     chan error
}

// OnGroupManageError is told what the client's group session failed with.
func (s *stage) OnGroupManageError(err error) {
	// What the server answered is a fault; that a member on its way out lost its connection is not.
	if answer := (*kerr.Error)(nil); !errors.As(err, &answer) {
		s.reconnects.Add(1)
		return
	}
	s.fail(fmt.Errorf("%s: group session: %w", s.group, err))
}

func (s *stage) fail(err error) {
	select {
	case s.faults <- err:
	default:
	}
}

// member lives until stop or for about life, then leaves properly.
func (s *stage) member(stop context.Context, life time.Duration) error {
	cl, err := client(s.bootstrap, kgo.ConsumeTopics(s.from), kgo.ConsumerGroup(s.group), kgo.DefaultProduceTopic(s.to), kgo.WithHooks(s),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll(), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(20*time.Second), kgo.HeartbeatInterval(200*time.Millisecond), kgo.FetchMaxWait(200*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	end := time.Now().Add(life)
	for stop.Err() == nil && time.Now().Before(end) {
		ctx, cancel := within(300 * time.Millisecond)
		fetches := cl.PollRecords(ctx, 500)
		cancel()
		for _, fault := range fetches.Errors() {
			if !errors.Is(fault.Err, context.DeadlineExceeded) {
				return fmt.Errorf("poll of %s: %w", fault.Topic, fault.Err)
			}
		}
		if err := s.move(cl, fetches.Records()); err != nil {
			return err
		}
		cl.AllowRebalance()
	}
	return nil
}

func (s *stage) move(cl *kgo.Client, records []*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	out := make([]*kgo.Record, 0, len(records))
	for _, record := range records {
		out = append(out, &kgo.Record{Key: record.Key, Value: record.Value})
	}
	if err := cl.ProduceSync(ctx, out...).FirstErr(); err != nil {
		return fmt.Errorf("produce to %s: %w", s.to, err)
	}
	if err := cl.CommitRecords(ctx, records...); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// run keeps three members going, each replaced when its time is over.
func (s *stage) run(stop context.Context, wait *sync.WaitGroup) {
	for range 3 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for stop.Err() == nil {
				if err := s.member(stop, time.Second+rand.N(2*time.Second)); err != nil {
					s.fail(fmt.Errorf("%s: %w", s.group, err))
					return
				}
				s.bounces.Add(1)
			}
		}()
	}
}

func chainedGroups(bootstrap string) (string, error) {
	seconds := setting("etl_seconds", 20)
	topics := []string{"franz-etl-0", "franz-etl-1", "franz-etl-2", "franz-etl-3"}
	for _, topic := range topics {
		if err := create(bootstrap, topic, 6, nil); err != nil {
			return "", err
		}
	}
	stop, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wait sync.WaitGroup
	faults := make(chan error, 1)
	stages := make([]*stage, 3)
	for index := range stages {
		stages[index] = &stage{bootstrap: bootstrap, group: fmt.Sprintf("franz-etl-%d", index), from: topics[index], to: topics[index+1], faults: faults}
		stages[index].run(stop, &wait)
	}
	sent, err := feed(bootstrap, topics[0], time.Duration(seconds)*time.Second, faults)
	if err != nil {
		return "", err
	}
	err = arrived(bootstrap, topics[3], sent, faults)
	cancel()
	wait.Wait()
	if err != nil {
		return "", err
	}
	bounces, reconnects := int64(0), int64(0)
	for _, s := range stages {
		bounces += s.bounces.Load()
		reconnects += s.reconnects.Load()
	}
	return fmt.Sprintf("%d records through 3 groups, %d members came and went, %d lost connections", sent, bounces, reconnects), nil
}

// feed writes numbered records for a while.
func feed(bootstrap, topic string, length time.Duration, faults chan error) (int, error) {
	cl, err := client(bootstrap, kgo.DefaultProduceTopic(topic))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	sent, end := 0, time.Now().Add(length)
	for time.Now().Before(end) {
		var records []*kgo.Record
		for range 100 {
			records = append(records, kgo.KeyStringRecord(strconv.Itoa(sent), strconv.Itoa(sent)))
			sent++
		}
		ctx, cancel := within(20 * time.Second)
		err := cl.ProduceSync(ctx, records...).FirstErr()
		cancel()
		if err != nil {
			return sent, err
		}
		select {
		case fault := <-faults:
			return sent, fault
		case <-time.After(50 * time.Millisecond):
		}
	}
	return sent, nil
}

// arrived reads the last topic until every number was seen, and a little on, for doubles.
func arrived(bootstrap, topic string, sent int, faults chan error) error {
	cl, err := client(bootstrap, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	seen, doubles, end := map[string]bool{}, 0, time.Now().Add(60*time.Second)
	for quiet := 0; len(seen) < sent || quiet < 4; quiet++ {
		ctx, cancel := within(500 * time.Millisecond)
		fetches := cl.PollFetches(ctx)
		cancel()
		for _, record := range fetches.Records() {
			quiet = 0
			if seen[string(record.Value)] {
				doubles++
			}
			seen[string(record.Value)] = true
		}
		select {
		case fault := <-faults:
			return fault
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d records arrived", len(seen), sent)
		}
	}
	if doubles > 0 {
		return fmt.Errorf("%d records arrived twice", doubles)
	}
	return nil
}
