"""What the Python client of azul-bedrock does with a server. Its models refuse unknown keys, nulls and missing keys.

Usage: cases.py URL [CASE]... , by the Python that has the client; drive.py does that. One line a case, then a summary.
"""
import asyncio, datetime, hashlib, io, itertools, logging, sys, time, traceback
from concurrent.futures import ThreadPoolExecutor

import pendulum
from starlette.datastructures import UploadFile

from azul_bedrock import models_api as azapi, models_network as azm
from azul_bedrock.dispatcher import MAX_MESSAGE_SIZE, DispatcherAPI
from azul_bedrock.exceptions_bedrock import DispatcherApiException

URL, ONLY = sys.argv[1], sys.argv[2:]
NOW = datetime.datetime.now(datetime.timezone.utc)
HISTORIC = {"require_historic": True}
CONTENT = azm.DataLabel.CONTENT
MODELS = list(azm.ModelType)
USER = azm.Author(name="kim", version="1", category="user", security="OFFICIAL")
numbers = itertools.count()
FIRST, TOGETHER, LAST = [], [], []


def into(cases):
    """A decorator: the function is one of these cases."""
    def add(function):
        cases.append(function)
        return function
    return add


case = into(TOGETHER)


# What the cases are made of


def api(name=None, version="1", key=""):
    """A client with a name of its own, so that it reads from the beginning."""
    name = name or f"reader{next(numbers)}"
    return DispatcherAPI(events_url=URL, data_url=URL, retry_count=3, timeout=15, author_name=name,
                         author_version=version, deployment_key=key)


common = api("common")


def content():
    """Bytes nobody had before."""
    return f"content {next(numbers)} of {NOW.isoformat()}".encode()


def upload(data, source="lab", label=CONTENT):
    stream = common.submit_binary(source, label, data)
    stream.label = label
    return stream


def node(sha256, action="sourced", author=USER, **more):
    return azm.PathNode(sha256=sha256, action=action, timestamp=NOW, author=author, **more)


def source_of(path, name="lab", at=NOW, **more):
    more.setdefault("references", {"user": "kim", "case": str(next(numbers))})
    return azm.Source(name=name, timestamp=at, path=path, security="OFFICIAL", **more)


def head(author=USER, at=NOW):
    return {"model_version": azm.CURRENT_MODEL_VERSION, "kafka_key": "tmp", "timestamp": at, "author": author}


def binary(stream=None, source="lab", at=NOW, author=USER, **more):
    """A submission as the web form makes it: every member the model knows is set."""
    stream = stream or upload(content())
    entity = stream.to_input_entity()
    entity.info = {"a": [1, None, {"b": "ü"}]}
    at_feature = azm.FeatureValue(name="at", type="datetime", value=azm.value_encode(NOW), label="x", offset=7, size=9)
    entity.features.append(at_feature)
    path = [node(stream.sha256, author=author, filename="demo.bin", size=stream.size, file_format=stream.file_format,
                 language="none", relationship={"how": "by hand"})]
    source = source_of(path, source, at)
    return azm.BinaryEvent(**head(author, at), entity=entity, action="sourced", source=source, **more)


def child_of(parent, stream, author, action="extracted"):
    """What a plugin found in a file: another file, or features for an enrichment."""
    sha256 = stream.sha256 if stream else parent.entity.sha256
    source = parent.source.model_copy(update={"path": [*parent.source.path, node(sha256, action, author)]})
    entity = stream.to_input_entity() if stream else azm.BinaryEvent.Entity(sha256=sha256, features=[
        azm.FeatureValue(name="entropy", type="float", value="7.9")])
    return azm.BinaryEvent(**head(author), entity=entity, action=action, source=source)


def status_of(taken, status, author, **more):
    """A status as a plugin reports it: its input without features, streams and info."""
    slim = taken.model_copy(update={"entity": azm.BinaryEvent.Entity(sha256=taken.entity.sha256)})
    return azm.StatusEvent(**head(author), entity=azm.StatusEvent.Entity(input=slim, status=status, **more))


def post(events, model="binary", **more):
    return common.submit_events(events, model=azm.ModelType(model), **more)


def submit(event, model="binary", **more):
    """The event as stored, read by the strict model."""
    answer = post([event], model, sync=True, include_ok=True, **more)
    same((answer.total_ok, answer.total_failures, answer.failures), (1, 0, []))
    same(len(answer.ok), 1)
    return type(event).model_validate(answer.ok[0])


def getter(client, model):
    """The typed call; there is none for retrohunt."""
    if model != "retrohunt":
        return getattr(client, f"get_{model}_events")
    return lambda **how: client.get_generic_events(model=azm.ModelType(model), **how)


def everything(client, model="binary", **how):
    """All events a client is given now."""
    events, how = [], HISTORIC | how
    while True:
        info, batch = getter(client, model)(count=1000, deadline=1, **how)
        same((info.fetched, info.filtered), (len(batch), sum(info.filters.values())))
        events += batch
        if not batch and not info.filtered:
            return events


def task(client, wanted, tries=50, **how):
    """The wanted event as a task; others are let go."""
    for _ in range(tries):
        _, events = client.get_binary_events(is_task=True, count=1, deadline=1, **HISTORIC | how)
        if events and events[0].kafka_key == wanted.kafka_key:
            return events[0]
    raise AssertionError(f"{wanted.kafka_key} was not handed out")


def found(events, wanted):
    matching = [event for event in events if event.kafka_key == wanted.kafka_key]
    same(len(matching), 1)
    return matching[0]


def same(got, wanted):
    assert got == wanted, f"{got!r} instead of {wanted!r}"


def refused(code, text, call, *args, **more):
    """The call raises the client's exception with this status, and with this text for the user at its beginning."""
    try:
        answer = call(*args, **more)
    except DispatcherApiException as error:
        shown = str(error)
        same(error.status_code, code)
        assert shown.startswith(text), f"{shown!r} does not begin with {text!r}; {error!r}"
        return shown
    raise AssertionError(f"not refused: {answer!r}")


# Streams


@case
def upload_returns_metadata_that_parses():
    data = content()
    for what in (data, io.BytesIO(data)):
        stream = common.submit_binary("lab", CONTENT, what)
        same((stream.label, stream.size, stream.sha256), ("content", len(data), hashlib.sha256(data).hexdigest()))
        same((stream.md5, stream.sha1), (hashlib.md5(data).hexdigest(), hashlib.sha1(data).hexdigest()))
        same((stream.sha512, stream.mime), (hashlib.sha512(data).hexdigest(), "text/plain"))
        same(stream.to_input_entity().datastreams, [stream])


@case
def upload_without_length():
    async def pieces():
        for number in range(40):
            yield b"%05d" % number * 10_000

    async def all_kinds():
        client, data = api(), content()
        for what in (data, io.BytesIO(data), UploadFile(io.BytesIO(data))):
            same((await client.async_submit_binary("lab", CONTENT, what)).sha256, hashlib.sha256(data).hexdigest())
        long = b"".join([piece async for piece in pieces()])
        stream = await client.async_submit_binary("lab", azm.DataLabel.TEXT, pieces(), timeout=60)
        same((stream.size, stream.sha256), (len(long), hashlib.sha256(long).hexdigest()))
    asyncio.run(all_kinds())


@case
def a_program_is_identified():
    with open(sys.executable, "rb") as program:
        stream = common.submit_binary("lab", CONTENT, program)
    assert stream.tlsh and stream.file_format.startswith("executable/") and stream.identify_version, stream
    stream.language = "none"
    stored = submit(binary(stream))
    same(found(everything(api()), stored).entity.datastreams, [stream])


@case
def upload_of_every_label():
    for label in azm.DataLabel:
        data = content()
        sha256 = common.submit_binary("lab", label, data).sha256
        same(common.get_binary("lab", label, sha256).content, data)


@case
def upload_with_expected_hash():
    data = content()
    sha256 = hashlib.sha256(data).hexdigest()
    same(common.submit_binary("lab", CONTENT, data, expected_sha256=sha256).sha256, sha256)
    other = content()
    refused(400, "sha256 mismatch", common.submit_binary, "lab", CONTENT, other, expected_sha256=sha256)
    refused(404, "", common.has_binary, "lab", CONTENT, hashlib.sha256(other).hexdigest())


@case
def upload_without_identification():
    data = content()
    sha256 = hashlib.sha256(data).hexdigest()
    stream = common.submit_binary("lab", CONTENT, data, skip_identify=True, expected_sha256=sha256)
    same((stream.label, stream.size, stream.sha256, stream.mime), ("content", len(data), sha256, ""))
    refused(400, "must supply sha256 when skipping identify", common.submit_binary, "lab", CONTENT, data,
            skip_identify=True)


@case
def upload_of_nothing_is_refused():
    refused(400, "no content in request body", common.submit_binary, "lab", CONTENT, b"")


@case
def download_with_ranges():
    data, client = content(), api()
    sha256 = upload(data).sha256
    wanted = {(None, None): data, (3, None): data[3:], (0, 6): data[:7], (2, 2): data[2:3], (None, 4): data[-4:],
              (3, 10_000): data[3:]}
    for (begin, end), part in wanted.items():
        answer = client.get_binary("lab", CONTENT, sha256.upper(), begin, end)
        same((answer.content, answer.status_code), (part, 200 if begin is end is None else 206))
    refused(400, "invalid range end: offset after EOF", client.get_binary, "lab", CONTENT, sha256, len(data))
    refused(404, "", client.get_binary, "lab", CONTENT, "0" * 64)


@case
def download_in_pieces():
    async def pieces():
        client, data = api(), content() * 50_000
        sha256 = (await client.async_submit_binary("lab", CONTENT, data)).sha256
        got = b"".join([piece async for piece in await client.async_get_binary("lab", CONTENT, sha256)])
        assert got == data
        part = [piece async for piece in await client.async_get_binary("lab", CONTENT, sha256, 5, 9)]
        same(b"".join(part), data[5:10])
        for code, hash_, begin in ((404, "0" * 64, None), (400, sha256, len(data))):
            try:
                await client.async_get_binary("lab", CONTENT, hash_, begin)
            except DispatcherApiException as error:
                same(error.status_code, code)
            else:
                raise AssertionError("not refused")
    asyncio.run(pieces())


@case
def has_says_whether_it_is_there():
    sha256 = upload(content()).sha256
    common.has_binary("lab", CONTENT, sha256)
    common.has_binary("lab", CONTENT, sha256.upper())
    refused(404, "", common.has_binary, "other", CONTENT, sha256)
    refused(404, "", common.has_binary, "lab", CONTENT, "0" * 64)


@case
def copy_to_another_source():
    data = content()
    sha256 = upload(data).sha256
    common.copy_binary("lab", "other", CONTENT, sha256)
    same(common.get_binary("other", CONTENT, sha256).content, data)
    refused(404, "", common.copy_binary, "lab", "other", CONTENT, "0" * 64)


@case
def delete_when_older():
    sha256, client = upload(content()).sha256, api()
    same(client.delete_binary("lab", CONTENT, sha256, pendulum.datetime(2000, 1, 1)), (True, False))
    client.has_binary("lab", CONTENT, sha256)
    tomorrow = pendulum.now("Australia/Sydney").add(days=1)
    same(client.delete_binary("lab", CONTENT, sha256.upper(), tomorrow), (True, True))
    refused(404, "", client.has_binary, "lab", CONTENT, sha256)
    same(client.delete_binary("lab", CONTENT, sha256, tomorrow), (False, False))


# Submitting


@case
def submit_without_echo():
    answer = post([binary(), binary()], params={"name": "metastore", "version": "1"})
    same((answer.total_ok, answer.total_failures, answer.failures, answer.ok), (2, 0, [], []))


@case
def submit_with_echo():
    event = binary(flags=azm.BinaryFlags(bypass_cache=True))
    stored = submit(event)
    assert len(stored.kafka_key) == 32 and stored.kafka_key != "tmp"
    assert stored.track_source_references and stored.track_authors, stored
    same((stored.entity, stored.source, stored.flags), (event.entity, event.source, event.flags))
    same((stored.timestamp, stored.author), (event.timestamp, event.author))
    same(found(everything(api()), stored), stored)


@case
def submit_every_action():
    first = submit(binary())
    plugin = azm.Author(name=f"carver{next(numbers)}", version="2", category="plugin")
    inner = upload(content())
    extracted, enriched = child_of(first, inner, plugin), child_of(first, None, plugin, "enriched")
    augmented = child_of(first, first.entity.datastreams[0], plugin, "augmented")
    augmented.entity.datastreams.append(upload(content(), label=azm.DataLabel.TEXT))
    mapped = binary()
    mapped.action = mapped.source.path[0].action = azm.BinaryAction.Mapped
    mapped.entity.datastreams = []
    stored = [submit(event) for event in (extracted, enriched, augmented, mapped)]
    assert stored[0].track_links, stored[0]
    events = everything(api())
    for event in stored:
        same(found(events, event), event)


@case
def an_invalid_event_is_listed():
    good, bad = binary(), binary()
    bad.author = azm.Author(name="")
    answer = post([bad, good], include_ok=True, raise_invalid=False)
    same((answer.total_ok, answer.total_failures, len(answer.failures), len(answer.ok)), (1, 1, 1, 1))
    same(azm.BinaryEvent.model_validate_json(answer.failures[0].event).source, bad.source)
    azm.BinaryEvent.model_validate(answer.ok[0])
    refused(200, "", post, [bad, binary()])


@case
def an_old_version_is_refused():
    event = binary()
    event.model_version = 5
    shown = refused(422, "PostEvent TransformEvents invalid events: ", post, [event])
    assert "event message version was too old" in shown, shown


@case
def no_event_left_is_shown_with_title_and_detail():
    title = "All events to be published have been filtered out: "
    bad = binary()
    bad.author = azm.Author(name="")
    shown = refused(425, title + "failed to produce any", post, [bad])
    assert "1 response failures" in shown, shown


@case
def an_expired_event_is_shown_with_title_and_detail():
    old = binary(source="short", at=NOW - datetime.timedelta(days=3))
    refused(425, "All events to be published have been filtered out: all submitted events aged off immediately",
            post, [old], include_ok=True)


@case
def the_largest_event_the_client_sends():
    event = binary()
    event.entity.info = {"filler": ""}
    text = event.model_dump_json(exclude_defaults=True, exclude_unset=True)
    event.entity.info["filler"] = "x" * (MAX_MESSAGE_SIZE - len(text.encode()))
    stored = submit(event)
    same(found(everything(api()), stored).entity.info, event.entity.info)


# Reading


@into(FIRST)
def nothing_to_give_parses():
    def ask(model, is_task):
        client = api()
        for deadline in (0, 1):
            how = {"require_live": True, "deadline": deadline, "is_task": is_task}
            info, events = getter(client, model)(**how)
            same((events, info), ([], azapi.GetEventsInfo(filtered=0, fetched=0, ready=True)))
    with ThreadPoolExecutor(14) as pool:
        list(pool.map(ask, MODELS * 2, [False] * len(MODELS) + [True] * len(MODELS)))


def one_of_each():
    """Every model with every member it knows."""
    parent, stream = binary(), upload(content())
    plugin = azm.PluginEvent.Entity(name=f"unboxer{next(numbers)}", version="1", category="plugin", security="OFFICIAL",
                                    contact="team@example.invalid", description="opens containers",
                                    config={"run_timeout": "600", "suffix": "null"}, features=[
                                        {"name": kind, "type": kind, "desc": ""} for kind in azm.FeatureType])
    yield "binary", parent
    yield "plugin", azm.PluginEvent(**head(), entity=plugin)
    yield "plugin", azm.PluginEvent(**head(), entity={"name": f"bare{next(numbers)}"})
    yield "download", azm.DownloadEvent(**head(), action="requested", source=source_of([]), entity={"hash": stream.md5})
    for action in azm.DownloadAction:
        yield "download", azm.DownloadEvent(**head(), action=action, source=parent.source, entity={
            "hash": stream.sha256, "direct_url": "https://example.invalid/x", "direct_expiry": NOW, "pcap": True,
            "category": "triage", "category_quota": 50, "metadata": {"ticket": ["T-1", None]}})
    yield "insert", azm.InsertEvent(**head(), entity={
        "original_source": "lab", "parent_sha256": "ab" * 32, "child": stream.to_input_entity(),
        "child_history": node(stream.sha256, "extracted", filename="inner.txt")})
    for number, status in enumerate(azm.StatusEnum):
        taken = parent.model_copy(update={"dequeued": f"{number}.{next(numbers)}"})
        yield "status", status_of(taken, status, USER, runtime=1.5, error="short", message="long")
    yield "retrohunt", azm.RetrohuntEvent(**head(), action="submitted", source={"submitter": "kim", "timestamp": NOW},
                                          entity={"id": "hunt_1", "search": "rule", "submitted_time": NOW})
    references = parent.source.references
    yield "delete", delete("submission", {"track_source_references": f"nowhere.{references['case']}"})
    yield "delete", delete("submission", {"track_source_references": "nowhere", "timestamp": NOW.isoformat()})
    yield "delete", delete("link", {"track_link": "a.b.c"})
    yield "delete", delete("author", {"track_author": "plugin.nobody.1", "timestamp": NOW.isoformat()})


def every_model_comes_back(is_task):
    sent = [(model, submit(event, model)) for model, event in one_of_each()]
    for model in MODELS:
        events = everything(api(), model, is_task=is_task)
        if model == "retrohunt":
            events = [azm.RetrohuntEvent.model_validate(event) for event in events]
        for stored in (stored for name, stored in sent if name == model):
            got = found(events, stored)
            if model == "delete":
                # Times are text to the client here, and come back as another text for the same time.
                same((got.entity.reason, got.action), (stored.entity.reason, stored.action))
                continue
            if is_task and model == "binary":
                assert got.dequeued.startswith(f"{stored.kafka_key}."), got.dequeued
                got.dequeued = None
            same(got, stored)


@case
def every_model_is_read_passively():
    every_model_comes_back(is_task=False)


@case
def every_model_is_read_as_tasks():
    every_model_comes_back(is_task=True)


@case
def filters_are_counted():
    name = f"filtering{next(numbers)}"
    mine = submit(binary(author=azm.Author(name=name)))
    enriched = submit(child_of(mine, None, azm.Author(name="x"), "enriched"))
    for how, wanted in (
        ({"deny_self": True}, [enriched]), ({"require_content": True}, [mine]),
        ({"require_actions": ["enriched"]}, [enriched]), ({"deny_actions": ["enriched", "mapped"]}, [mine]),
        ({"require_under_content_size": 5}, []), ({"require_over_content_size": 5}, [mine]),
        # An event without streams passes one wanted label, and never two.
        ({"require_streams": ["content,"]}, [mine, enriched]), ({"require_streams": ["content,", "*"]}, []),
        ({"require_streams": ["content,text/"]}, [mine, enriched]),
        ({"require_streams": ["content,executable"]}, [enriched]),
    ):
        keys = [event.kafka_key for event in everything(api(name, version=str(next(numbers))), **how)]
        same((how, [event for event in (mine, enriched) if event.kafka_key in keys]), (how, wanted))
    info, _ = api().get_binary_events(count=1000, require_over_content_size=1 << 30, **HISTORIC)
    same(sorted(info.filters), [f"FilterConsumerRules-reject_{why}" for why in ("content_too_small", "no_content")])


@into(FIRST)
def expedited_and_live_events_arrive():
    client, how = api(key="deployment"), {"require_expedite": True, "require_live": True, "is_task": True}
    same(client.get_binary_events(**how)[1], [])
    live = submit(binary())
    fast = submit(live.model_copy(update={"flags": azm.BinaryFlags(expedite=True)}))
    (first,), (second,) = client.get_binary_events(**how)[1], client.get_binary_events(**how)[1]
    same((first.flags.expedite, second.flags.expedite), (True, False))
    same((first.kafka_key, second.kafka_key), (fast.kafka_key, live.kafka_key))


@case
def bad_parameters_are_shown_with_title_and_detail():
    refused(422, "bad parameters: requires at least one of", api().get_binary_events)
    refused(422, "bad parameters: can only r-expedite with binary", api().get_status_events, require_expedite=True)
    refused(422, "bad parameters: bad parameter for r-over-content-size", api().get_binary_events, **HISTORIC,
            require_under_content_size=1, require_over_content_size=2)
    refused(422, "bad parameters: cannot combine", api().get_binary_events, **HISTORIC, require_content=True,
            require_actions=["sourced"])


# Statuses, plugins, deletion, insertion


@case
def results_of_a_status_become_events():
    name = f"worker{next(numbers)}"
    author, client = azm.Author(name=name, version="1", category="plugin"), api(name)
    taken = task(client, submit(binary(flags=azm.BinaryFlags(bypass_cache=True))))
    submit(status_of(taken, "heartbeat", author), "status")
    inner = upload(content())
    results = [child_of(taken, inner, author), child_of(taken, None, author, "enriched")]
    stored = submit(status_of(taken, "completed", author, runtime=0.25, results=results), "status")
    same(stored.entity.results, [])
    events = [event for event in everything(api()) if event.author == author]
    same(sorted(event.action for event in events), ["enriched", "extracted"])
    same([event.flags.bypass_cache for event in events], [True, True])
    statuses = [event for event in everything(api(), "status") if event.author == author]
    same([event.entity.status for event in statuses][-1], "completed")


@case
def a_status_that_failed_keeps_its_results():
    name = f"failing{next(numbers)}"
    author, client = azm.Author(name=name, version="1", category="plugin"), api(name)
    taken = task(client, submit(binary()))
    results = [child_of(taken, None, author, "enriched")]
    stored = submit(status_of(taken, "error-output", author, error="e", message="m", results=results), "status")
    same(len(stored.entity.results), 1)
    same(found(everything(api(), "status"), stored), stored)
    refused(425, "All events to be published have been filtered out: failed to produce any", post, [
        status_of(taken.model_copy(update={"dequeued": None}), "completed", author)], "status")


def delete(action, entity):
    return azm.DeleteEvent(**head(at=NOW + datetime.timedelta(minutes=1)), action=action,
                           entity={"reason": "a mistake", action: entity})


def deleted(event, action, entity):
    """A delete event hides an event from readers, and keeps it out."""
    reader = api()
    everything(reader)
    stored = submit(event)
    found(everything(reader), stored)
    purge = submit(delete(action, entity(stored)), "delete")
    found(everything(api(), "delete"), purge)
    assert stored.kafka_key not in [event.kafka_key for event in everything(api())]
    refused(425, "All events to be published have been filtered out: failed to produce any", post, [event])


@case
def a_submission_is_deleted():
    deleted(binary(), "submission", lambda stored: {"track_source_references": stored.track_source_references})
    deleted(binary(), "submission", lambda stored: {"track_source_references": stored.track_source_references,
                                                    "timestamp": stored.source.timestamp.isoformat()})


@case
def a_link_is_deleted():
    author = azm.Author(name="carver", version="2", category="plugin")
    deleted(child_of(submit(binary()), upload(content()), author), "link",
            lambda stored: {"track_link": stored.track_links[0]})


@case
def an_author_is_deleted():
    author = azm.Author(name=f"wrong{next(numbers)}", version="2", category="plugin")
    later = (NOW + datetime.timedelta(hours=1)).isoformat()
    deleted(child_of(submit(binary()), upload(content()), author), "author",
            lambda stored: {"track_author": stored.track_authors[-1], "timestamp": later})


@case
def a_child_is_inserted():
    data = content()
    child, parent = upload(data, "other"), binary()
    history = node(child.sha256, "extracted", filename="inner.txt")
    inserted = submit(azm.InsertEvent(**head(), entity={
        "original_source": "other", "parent_sha256": parent.entity.sha256, "child": child.to_input_entity(),
        "child_history": history}), "insert")
    assert inserted.track_link and inserted.track_author, inserted
    submit(parent)
    events = [event for event in everything(api()) if event.entity.sha256 == child.sha256]
    same([event.source.path[1:] for event in events], [[history]])
    same(events[0].track_links, [inserted.track_link])
    same(common.get_binary("lab", CONTENT, child.sha256).content, data)


@case
def simulate_says_who_would_take_it():
    takes, leaves = api(f"takes{next(numbers)}"), api(f"leaves{next(numbers)}")
    everything(takes)
    everything(leaves, require_over_content_size=1 << 30, is_task=True)
    consumers = {consumer.name: consumer for consumer in common.simulate_consumers_on_event(binary()).consumers}
    took, left = consumers[takes._author_name], consumers[leaves._author_name]
    same((took.version, took.filter_out, took.filter_out_trigger), ("1", False, ""))
    same((left.filter_out, left.filter_out_trigger.startswith("FilterConsumerRules-")), (True, True))


@into(LAST)
def plugins_pause():
    client = api()
    post([binary()], sync=True, pause_plugins=True)
    for _ in range(100):
        info, events = client.get_binary_events(is_task=True, **HISTORIC)
        if info.paused:
            break
        time.sleep(0.05)
    same((info, events), (azapi.GetEventsInfo(filtered=0, fetched=0, ready=False, paused=True), []))
    assert everything(api())


def main():
    logging.disable(logging.CRITICAL)
    failures = []
    wanted = [[function for function in cases if not ONLY or function.__name__ in ONLY]
              for cases in (FIRST, TOGETHER, LAST)]
    total = sum(map(len, wanted))

    def run(function):
        began = time.monotonic()
        try:
            function()
            outcome = "passed"
        except Exception:
            failures.append(function.__name__)
            outcome = "failed: " + traceback.format_exc()
        sys.stdout.write(f"{function.__name__} ({time.monotonic() - began:.1f} s): {outcome}\n")
        sys.stdout.flush()

    # Before: who needs that nobody else writes. After: the pause, which keeps tasks back for ten minutes.
    for cases, width in zip(wanted, (1, 6, 1)):
        with ThreadPoolExecutor(width) as pool:
            list(pool.map(run, cases))
    print(f"{total - len(failures)} of {total} cases" + (f"; failed: {', '.join(failures)}" if failures else ""))
    return 1 if failures or not total else 0


if __name__ == "__main__":
    sys.exit(main())
