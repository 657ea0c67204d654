// What the Go client of azul-bedrock does with a server.
//
// Usage: cases URL [CASE]... ; run_cases.py builds it against a checkout. One line a case, then a summary.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/AustralianCyberSecurityCentre/azul-bedrock/v12/gosrc/client"
	"github.com/AustralianCyberSecurityCentre/azul-bedrock/v12/gosrc/events"
	"github.com/AustralianCyberSecurityCentre/azul-bedrock/v12/gosrc/models"
)

var (
	url     string
	readers int
	now     = time.Now().UTC().Truncate(time.Second)
	user    = events.EventAuthor{Name: "kim", Version: "1", Category: "user", Security: "OFFICIAL"}
)

// A client with a name of its own, so that it reads from the beginning.
func reader() *client.Client {
	readers++
	return named(fmt.Sprintf("reader%d", readers))
}

func named(name string) *client.Client {
	author := events.PluginEntity{Name: name, Version: "1", Category: "plugin"}
	return client.NewClient(url, url, author, name+"-key")
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must(holds bool, what string, values ...any) {
	if !holds {
		panic(fmt.Sprintf("%s: %+v", what, values))
	}
}

// Uploads bytes nobody had before; the event of somebody who submits them.
func submission() *events.BinaryEvent {
	readers++
	entity, err := reader().PostStreamContent("lab", bytes.NewReader([]byte(fmt.Sprintf("content %d of %s", readers, now))))
	check(err)
	node := events.EventSourcePathNode{Author: user, Action: events.ActionSourced, Sha256: entity.Sha256, Timestamp: now}
	return &events.BinaryEvent{
		ModelVersion: events.CurrentModelVersion, KafkaKey: "tmp", Timestamp: now, Author: user, Action: events.ActionSourced,
		Entity: *entity,
		Source: events.EventSource{Name: "lab", Security: "OFFICIAL", Timestamp: now,
			References: map[string]string{"user": "kim"}, Path: []events.EventSourcePathNode{node}},
	}
}

// Submits one event; its key.
func submit(event *events.BinaryEvent) string {
	bulk := events.BulkBinaryEvent{Events: []*events.BinaryEvent{event}}
	bulk.SetModelVersion(events.CurrentModelVersion)
	answer, err := reader().PostEvents(&bulk, &client.PublishEventsOptions{Sync: true, IncludeOk: true})
	check(err)
	must(answer.TotalOk == 1 && answer.TotalFailures == 0 && len(answer.Failures) == 0 && len(answer.Ok) == 1, "answer", answer)
	stored, is := answer.Ok[0].(map[string]any)
	must(is, "ok", answer.Ok)
	key, is := stored["kafka_key"].(string)
	must(is && len(key) == 32, "kafka_key", stored)
	return key
}

func historic(count int) *client.FetchEventsStruct {
	return &client.FetchEventsStruct{Count: count, Deadline: 1, RequireHistoric: true}
}

// The event of this key out of everything a new reader is given.
func find(key string, query *client.FetchEventsStruct, from *client.Client) *events.BinaryEvent {
	for range 100 {
		bulk, info, err := from.GetBinaryEvents(query)
		check(err)
		adds(info, len(bulk.Events))
		for _, event := range bulk.Events {
			if event.KafkaKey == key {
				return event
			}
		}
		must(len(bulk.Events) > 0 || info.Filtered > 0, "was not handed out", key)
	}
	panic("was not handed out: " + key)
}

// Counts of an answer make sense together.
func adds(info *models.EventResponseInfo, fetched int) {
	sum := 0
	for _, count := range info.Filters {
		sum += count
	}
	must(info.Fetched == fetched && info.Filtered == sum, "counts", info, fetched)
}

// The error is one of the server with this status and title.
func refused(err error, status int, title string) models.Error {
	var answer *client.HttpError
	must(errors.As(err, &answer), "no error of the server", err)
	var body models.Error
	check(json.Unmarshal([]byte(answer.Body), &body))
	must(answer.StatusCode == status && body.Title == title && body.Status == fmt.Sprint(status), "refusal", answer, body)
	return body
}

func nothingToGiveParses() {
	query := func() *client.FetchEventsStruct { return &client.FetchEventsStruct{RequireLive: true} }
	asks := map[string]func(*client.Client) (int, *models.EventResponseInfo, error){
		"binary": func(c *client.Client) (int, *models.EventResponseInfo, error) {
			bulk, info, err := c.GetBinaryEvents(query())
			return len(bulk.Events), info, err
		},
		"status": func(c *client.Client) (int, *models.EventResponseInfo, error) {
			bulk, info, err := c.GetStatusEvents(query())
			return len(bulk.Events), info, err
		},
		"plugin": func(c *client.Client) (int, *models.EventResponseInfo, error) {
			bulk, info, err := c.GetPluginEvents(query())
			return len(bulk.Events), info, err
		},
		"insert": func(c *client.Client) (int, *models.EventResponseInfo, error) {
			bulk, info, err := c.GetInsertEvents(query())
			return len(bulk.Events), info, err
		},
		"delete": func(c *client.Client) (int, *models.EventResponseInfo, error) {
			bulk, info, err := c.GetDeleteEvents(query())
			return len(bulk.Events), info, err
		},
	}
	for model, ask := range asks {
		// Unset, the deadline and the count arrive as 0: one sweep that answers at once.
		count, info, err := ask(reader())
		check(err)
		must(count == 0 && info.Filtered == 0 && info.Ready && !info.Paused, model, info)
		adds(info, 0)
	}
}

func aSubmissionIsReadBack() {
	event := submission()
	key := submit(event)
	got := find(key, historic(100), reader())
	must(got.Entity.Sha256 == event.Entity.Sha256 && got.Action == event.Action, "event", got)
	must(got.Source.Name == "lab" && got.Source.References["user"] == "kim" && got.Source.Timestamp.Equal(now), "source", got)
	must(len(got.Entity.Datastreams) == 1 && got.Entity.Datastreams[0] == event.Entity.Datastreams[0], "stream", got)
	must(got.ModelVersion == events.CurrentModelVersion && got.TrackSourceReferences != "", "event", got)
	must(len(got.TrackAuthors) == 1 && got.TrackAuthors[0] == "user.kim.1", "track_authors", got.TrackAuthors)
}

func aReaderIsGivenAnEventOnceAndAgainAfterAReset() {
	key, from := submit(submission()), reader()
	find(key, historic(1000), from)
	for {
		bulk, _, err := from.GetBinaryEvents(historic(1000))
		check(err)
		if len(bulk.Events) == 0 {
			break
		}
		again := func(event *events.BinaryEvent) bool { return event.KafkaKey == key }
		must(!slices.ContainsFunc(bulk.Events, again), "handed out twice", key)
	}
	query := historic(1000)
	query.Reset = true
	find(key, query, from)
}

func filtersAreCounted() {
	submit(submission())
	query := historic(1)
	query.RequireUnderContentSize = 1
	bulk, info, err := reader().GetBinaryEvents(query)
	check(err)
	adds(info, 0)
	must(len(bulk.Events) == 0 && info.Filters["FilterConsumerRules-reject_content_too_large"] > 0, "filters", info)
	query = historic(1)
	query.RequireSources = []string{"nowhere"}
	_, info, err = reader().GetBinaryEvents(query)
	check(err)
	must(!info.Ready && info.ConsumersNotReady == "historic", "a source that is not there", info)
}

func aTaskIsTakenAndCompleted() {
	key, plugin := submit(submission()), named("carver")
	query := historic(1)
	query.IsTask = true
	task := find(key, query, plugin)
	must(task.Dequeued != "", "dequeued", task)
	author := events.EventAuthor{Name: "carver", Version: "1", Category: "plugin"}
	child := submission()
	node := events.EventSourcePathNode{Author: author, Action: events.ActionExtracted, Sha256: child.Entity.Sha256, Timestamp: now}
	child.Author, child.Action, child.Source = author, events.ActionExtracted, task.Source
	child.Source.Path = append(slices.Clone(task.Source.Path), node)
	input := *task
	input.Entity = events.BinaryEntity{Sha256: task.Entity.Sha256}
	status := events.StatusEvent{ModelVersion: events.CurrentModelVersion, Timestamp: now, Author: author,
		Entity: events.StatusEntity{Input: input, Status: events.StatusTypeCompleted, RunTime: 1.5,
			Results: []events.BinaryEvent{*child}}}
	bulk := events.BulkStatusEvent{Events: []*events.StatusEvent{&status}}
	bulk.SetModelVersion(events.CurrentModelVersion)
	answer, err := plugin.PostEvents(&bulk, &client.PublishEventsOptions{Sync: true})
	check(err)
	must(answer.TotalOk == 1 && answer.TotalFailures == 0, "answer", answer)
	statuses, info, err := reader().GetStatusEvents(historic(1000))
	check(err)
	adds(info, len(statuses.Events))
	ours := func(event *events.StatusEvent) bool { return event.Entity.Input.Dequeued == task.Dequeued }
	at := slices.IndexFunc(statuses.Events, ours)
	must(at >= 0 && len(statuses.Events[at].Entity.Results) == 0, "the status", statuses.Events)
	sources := historic(1000)
	sources.RequireActions = []events.BinaryAction{events.ActionExtracted}
	children, _, err := reader().GetBinaryEvents(sources)
	check(err)
	is := func(event *events.BinaryEvent) bool { return event.Entity.Sha256 == child.Entity.Sha256 }
	must(slices.ContainsFunc(children.Events, is), "the child", children.Events)
}

func aPluginRegisters() {
	plugin := reader()
	check(plugin.PublishPlugin())
	bulk, _, err := reader().GetPluginEvents(historic(1000))
	check(err)
	is := func(event *events.PluginEvent) bool { return event.Entity.Name == plugin.Author.Name }
	must(slices.ContainsFunc(bulk.Events, is), "registration", bulk.Events)
}

func refusalsParse() {
	connection, binary := reader(), client.PublishBytesOptions{Model: events.ModelBinary}
	_, err := connection.PostEventsBytes([]byte("not json"), &binary)
	refused(err, 422, "PostEvent TransformEvents invalid events")
	_, err = connection.PostEventsBytes(nil, &binary)
	refused(err, 400, "Empty Request")
	bad := submission()
	bad.Author.Name = ""
	bulk := events.BulkBinaryEvent{Events: []*events.BinaryEvent{bad}}
	bulk.SetModelVersion(events.CurrentModelVersion)
	_, err = reader().PostEvents(&bulk, &client.PublishEventsOptions{Sync: true})
	body := refused(err, 425, "All events to be published have been filtered out")
	must(body.ErrorEnum == models.ErrorStringEnumAllEventsFiltered, "error_enum", body)
	_, _, err = reader().GetBinaryEvents(&client.FetchEventsStruct{Count: 1})
	refused(err, 422, "bad parameters")
}

func simulateParses() {
	picky := named("picky")
	query := historic(1)
	query.RequireUnderContentSize = 1
	_, _, err := picky.GetBinaryEvents(query)
	check(err)
	event, err := json.Marshal(submission())
	check(err)
	answer, err := picky.SimulateConsumersOnEventBytes(event)
	check(err)
	is := func(consumer models.EventSimulateConsumer) bool {
		return consumer.Name == "picky" && consumer.FilterOut
	}
	must(slices.ContainsFunc(answer.Consumers, is), "consumers", answer)
}

func streamsGoBothWays() {
	connection, data := reader(), []byte("stream of "+now.String())
	stream, err := connection.PostStream("lab", events.DataLabelContent, bytes.NewReader(data), &client.PostStreamStruct{})
	check(err)
	must(stream.Size == uint64(len(data)) && len(stream.Sha256) == 64 && stream.Mime == "text/plain", "metadata", stream)
	whole, err := connection.DownloadBinary("lab", events.DataLabelContent, stream.Sha256)
	check(err)
	got, err := io.ReadAll(whole)
	check(err)
	must(bytes.Equal(got, data), "download", got)
	part, err := connection.DownloadBinaryChunk("lab", events.DataLabelContent, stream.Sha256, 2, 5)
	check(err)
	must(bytes.Equal(part, data[2:6]), "part", part)
	there, err := connection.Exists("lab", events.DataLabelContent, stream.Sha256)
	must(err == nil && there, "exists", err)
	tomorrow := now.Add(24 * time.Hour)
	deleted, err := connection.DeleteBinary("lab", events.DataLabelContent, stream.Sha256, &tomorrow)
	must(err == nil && deleted, "delete", err)
	there, err = connection.Exists("lab", events.DataLabelContent, stream.Sha256)
	must(err == nil && !there, "exists after its deletion", err)
}

func run(name string, call func()) (passed bool) {
	defer func() {
		if problem := recover(); problem != nil {
			fmt.Printf("%s: failed: %v\n", name, problem)
			passed = false
		}
	}()
	call()
	fmt.Println(name + ": passed")
	return true
}

func main() {
	url = os.Args[1]
	cases := []struct {
		name string
		call func()
	}{
		{"nothing to give parses", nothingToGiveParses},
		{"a submission is read back", aSubmissionIsReadBack},
		{"a reader is given an event once, and again after a reset", aReaderIsGivenAnEventOnceAndAgainAfterAReset},
		{"filters are counted", filtersAreCounted},
		{"a task is taken and completed", aTaskIsTakenAndCompleted},
		{"a plugin registers", aPluginRegisters},
		{"refusals parse", refusalsParse},
		{"simulate parses", simulateParses},
		{"streams go both ways", streamsGoBothWays},
	}
	total, failed := 0, 0
	for _, wanted := range cases {
		if len(os.Args) > 2 && !slices.Contains(os.Args[2:], wanted.name) {
			continue
		}
		total++
		if !run(wanted.name, wanted.call) {
			failed++
		}
	}
	fmt.Printf("%d cases, %d failed\n", total, failed)
	if failed > 0 || total == 0 {
		os.Exit(1)
	}
}
