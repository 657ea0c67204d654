#!/usr/bin/env bash
# A plugin for any Azul dispatcher, with bash, curl, awk and gzip: what a gzip file holds becomes a child.
#
# Usage: plugin.sh URL [IDLE_POLLS]      ends after that many polls in a row without a task; 0 is never
# Every step is explained in examples/README.md.
set -euo pipefail
export LC_ALL=C
url=${1:?names the dispatcher, for example http://127.0.0.1:8111}
idle_polls=${2:-0}
name=gunzip-sh version=1.0
author="{\"name\":\"$name\",\"version\":\"$version\",\"category\":\"plugin\"}"
largest=$((64 << 20))
folder=$(mktemp -d)
beat=
trap '[ -z "$beat" ] || kill "$beat" 2>/dev/null; rm -rf "$folder"' EXIT

# One request, made again while the dispatcher is busy or away; the body of the answer goes to standard output.
call() { curl --silent --show-error --fail --retry 20 --retry-max-time 600 --retry-connrefused --max-time 60 "$@"; }

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }

# The text of one value of the JSON object on standard input: value source.path
value() {
    awk -v want="$1" '
        function blank(p) { while (substr(text, p, 1) ~ /[ \t\r\n]/) p++; return p }
        function behind_string(p, c) {
            for (p++; (c = substr(text, p, 1)) != "\""; p++) { if (c == "\\") p++; if (c == "") exit 1 }
            return p + 1
        }
        function behind_value(p, c, depth) {
            for (depth = 0; (c = substr(text, p, 1)) != ""; p++) {
                if (c == "\"") { p = behind_string(p) - 1; if (!depth) return p + 1 }
                else if (c == "{" || c == "[") depth++
                else if (c == "}" || c == "]") { if (!depth) return p; if (!--depth) return p + 1 }
                else if (c == "," && !depth) return p
            }
            return p
        }
        function enter(key, p, end) {
            for (p = blank(at + 1); substr(text, p, 1) == "\""; p = blank(p + 1)) {
                end = behind_string(p)
                found = substr(text, p + 1, end - p - 2)
                p = blank(blank(end) + 1)
                if (found == key) { at = p; return 1 }
                p = blank(behind_value(p))
                if (substr(text, p, 1) != ",") return 0
            }
            return 0
        }
        { text = text (NR > 1 ? "\n" : "") $0 }
        END {
            at = blank(1)
            count = split(want, keys, ".")
            for (k = 1; k <= count; k++) if (!enter(keys[k])) exit 1
            printf "%s", substr(text, at, behind_value(at) - at)
        }'
}
# The same for a text without escapes.
word() { value "$1" | tr -d '"'; }

# Publishes the one event on standard input: publish MODEL
publish() {
    local answer
    answer=$(call --data-binary @- -H 'Content-Type: application/json' "$url/api/v2/event?model=$1&sync=true")
    case $answer in *'"total_failures":0'*) ;; *) echo "the dispatcher refused: $answer" >&2; return 1 ;; esac
}

head_of_event() {
    printf '"model_version":6,"kafka_key":"runner-placeholder","timestamp":"%s","author":%s' "$(now)" "$author"
}

# status WORD MESSAGE [FILE WITH RESULTS]
status() {
    {
        printf '[{%s,"entity":{"status":"%s","message":"%s","runtime":%d,"input":' \
            "$(head_of_event)" "$1" "$2" $((SECONDS - began))
        cat "$folder/task"
        printf ',"results":['
        [ $# -lt 3 ] || cat "$3"
        printf ']}}]'
    } | publish status
}

# The event of a new file below the task's: child FILE
child() {
    local data source path node
    data=$(call --data-binary "@$1" -H 'Content-Type: application/octet-stream' "$url/api/v3/stream/$source_name/content" |
        value data)
    source=$(value source <"$folder/task")
    path=$(value source.path <"$folder/task")
    node=$(printf '{"author":%s,"action":"extracted","sha256":%s,"timestamp":"%s","size":%s,%s}' "$author" \
        "$(value sha256 <<<"$data")" "$(now)" "$(value size <<<"$data")" '"relationship":{"action":"extracted"}')
    # The source with one node more.
    source="${source%%"$path"*}${path%]},$node]${source#*"$path"}"
    printf '{%s,"action":"extracted","source":%s,"entity":{"sha256":%s,"size":%s,"datastreams":[%s]}}' "$(head_of_event)" \
        "$source" "$(value sha256 <<<"$data")" "$(value size <<<"$data")" "$data"
}

work() {
    source_name=$(word source.name <"$folder/task")
    sha256=$(word entity.sha256 <"$folder/task")
    if ! call -o "$folder/content" "$url/api/v3/stream/$source_name/content/$sha256"; then
        finish error-input "the content cannot be read"
    elif [ "$(head -c 2 "$folder/content" | od -An -tx1 | tr -d ' \n')" != 1f8b ]; then
        finish opt-out "no gzip file"
    else
        local fault=
        { gzip -dc <"$folder/content" 2>/dev/null || echo fault >"$folder/fault"; } | head -c $((largest + 1)) >"$folder/out" || true
        [ ! -e "$folder/fault" ] || fault="the gzip data is damaged"
        if [ "$(wc -c <"$folder/out")" -gt "$largest" ]; then
            truncate -s "$largest" "$folder/out"
            fault="only the first $largest bytes were unpacked"
        fi
        : >"$folder/results"
        [ ! -s "$folder/out" ] || child "$folder/out" >"$folder/results"
        if [ -n "$fault" ]; then
            finish completed-with-errors "$fault"
        elif [ -s "$folder/results" ]; then
            finish completed ""
        else
            finish completed-empty ""
        fi
    fi
}

finish() {
    kill "$beat" 2>/dev/null || true
    wait "$beat" 2>/dev/null || true
    beat=
    if [ -e "$folder/results" ]; then status "$1" "$2" "$folder/results"; else status "$1" "$2"; fi
    echo "$sha256: $1 $2"
}

publish plugin <<EVENT
[{$(head_of_event),"entity":{"name":"$name","version":"$version","category":"plugin",
  "description":"Unpacks gzip files","features":[],"config":{}}}]
EVENT

poll="$url/api/v2/event/binary/active?name=$name&version=$version&count=1&deadline=10"
poll+="&r-expedite=true&r-live=true&r-historic=true&r-action=sourced&r-action=extracted&d-self=true"
idle=0
while [ "$idle_polls" -eq 0 ] || [ "$idle" -lt "$idle_polls" ]; do
    rm -f "$folder"/*
    call -o "$folder/answer" "$poll"
    # One task is one line of JSON, {"events":[ task ]}.
    grep -a '^{"events":' "$folder/answer" | tr -d '\r' | sed 's/^{"events":\[//; s/\]}$//' >"$folder/task"
    info=$(grep -a '^{"filtered":\|^{.*"fetched":' "$folder/answer" | head -n 1)
    if [ ! -s "$folder/task" ] || [ "$(wc -c <"$folder/task")" -le 1 ]; then
        case $info in *'"filtered":0'*) idle=$((idle + 1)) ;; esac
        case $info in *'"paused":true'*) sleep 5 ;; esac
        continue
    fi
    idle=0 began=$SECONDS
    # Ends with this process, however that ends: a task nobody works on must not be kept.
    (while kill -0 $$ 2>/dev/null && status heartbeat "" && sleep 30; do :; done) &
    beat=$!
    work
done
