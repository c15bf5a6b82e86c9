package main

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// volatile are settings that a server gives a VM anew, each with the reason. Paths are those of flatten.
var volatile = []struct{ path, reason string }{
	{`^id$`, "the server's handle of the VM"},
	{`^config\.(changeVersion|modified|createDate)$`, "the server's clock and counters"},
	{`^disks\[\d+\]\.allocated$`, "space on the datastore"},
	{`\.(contentId|changeId|diskObjectId)$`, "the server's handles of disks"},
	{`^(host|config\.locationId)$`, "the host, which the cluster chooses"},
}

// compareVMs compares everything the lab says about a VM before and after. It returns the number of
// settings that agree, and an error that lists those that don't.
func compareVMs(before, after vmStatus) (int, error) {
	a, b := map[string]string{}, map[string]string{}
	flatten("", before.all, a)
	flatten("", after.all, b)
	agree := 0
	var differ []string
	for _, path := range slices.Sorted(maps.Keys(union(a, b))) {
		was, had := a[path]
		is, has := b[path]
		switch {
		case isVolatile(path):
		case had && has && was == is:
			agree++
		case !has:
			differ = append(differ, fmt.Sprintf("%s was %s and is missing", path, was))
		case !had:
			differ = append(differ, fmt.Sprintf("%s is %s and was not there", path, is))
		default:
			differ = append(differ, fmt.Sprintf("%s was %s and is %s", path, was, is))
		}
	}
	if !bytes.Equal(before.nvram, after.nvram) {
		differ = append(differ, fmt.Sprintf("NVRAM differs: %d bytes, now %d", len(before.nvram), len(after.nvram)))
	}
	if len(differ) > 0 {
		return agree, fmt.Errorf("%d settings agree, %d do not:\n  %s", agree, len(differ), strings.Join(differ, "\n  "))
	}
	return agree, nil
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

var volatilePaths = func() []*regexp.Regexp {
	list := make([]*regexp.Regexp, len(volatile))
	for i, v := range volatile {
		list[i] = regexp.MustCompile(v.path)
	}
	return list
}()

func isVolatile(path string) bool {
	return slices.ContainsFunc(volatilePaths, func(r *regexp.Regexp) bool { return r.MatchString(path) })
}

// flatten writes every value of decoded JSON into a map by its path. Elements of lists that have a key,
// such as devices and extra configuration, go by it: their order is of no importance.
func flatten(path string, value any, into map[string]string) {
	switch v := value.(type) {
	case map[string]any:
		for name, element := range v {
			flatten(strings.TrimPrefix(path+"."+name, "."), element, into)
		}
	case []any:
		for i, element := range v {
			key := fmt.Sprint(i)
			if object, ok := element.(map[string]any); ok && object["key"] != nil {
				key = fmt.Sprint(object["key"])
			}
			flatten(fmt.Sprintf("%s[%s]", path, key), element, into)
		}
	default:
		into[path] = fmt.Sprintf("%#v", v)
	}
}
