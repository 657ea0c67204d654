// Package interop is what the Go client programs share: a case is a function, the answer is one line of JSON.
package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"time"
)

// Case does its work against the server at bootstrap and says something worth reading, or why it failed.
type Case func(bootstrap string) (string, error)

// Main runs the case that the command line names and prints its result.
func Main(cases map[string]Case) {
	answer := struct {
		OK     bool   `json:"ok"`
		Detail string `json:"detail"`
	}{}
	bootstrap, name := os.Args[1], os.Args[2]
	if work, known := cases[name]; !known {
		names := make([]string, 0, len(cases))
		for name := range cases {
			names = append(names, name)
		}
		sort.Strings(names)
		answer.Detail = fmt.Sprintf("no case %s, only %v", name, names)
	} else if detail, err := work(bootstrap); err != nil {
		answer.Detail = err.Error()
	} else {
		answer.OK, answer.Detail = true, detail
	}
	line, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// Eventually asks probe until it says yes, for at most limit.
func Eventually(limit time.Duration, what string, probe func() (bool, error)) error {
	end := time.Now().Add(limit)
	for {
		done, err := probe()
		if done {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %s (%v)", limit, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
