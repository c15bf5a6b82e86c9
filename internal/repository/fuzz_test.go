package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kopia/kopia/repo/object"
)

func FuzzManifest(f *testing.F) {
	m := testManifest()
	m.SchemaVersion = SchemaVersion
	m.Disks = []Disk{{File: "disk.raw", Capacity: mib, ChunkSize: mib, Digest: wantDigest(make([]byte, mib))}}
	good, err := json.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, change := range [][2]string{
		{`"capacity":1048576`, `"capacity":-1`},
		{`"capacity":1048576`, `"capacity":9223372036854775807`},
		{`"capacity":1048576`, `"capacity":1e3`},
		{`"disk.raw"`, `"../../etc/passwd"`},
		{`"disk.raw"`, `"backup.json"`},
		{`"disk.raw"`, `"config.json"`},
		{`"schema_version":1`, `"schema_version":2`},
		{`"schema_version":1`, `"schema_version":0`},
		{`blake3-1m:`, `sha256:`},
		{`"chunk_size":1048576`, `"chunk_size":0`},
		{`"data_bytes":0`, `"data_bytes":9999999`},
		{`"file":"disk.raw"`, `"file":"disk.raw","hashes":"disk.raw"`},
		{`"file":"disk.raw"`, `"file":"disk.raw","hashes":"../x"`},
		{`"file":"disk.raw"`, `"file":"disk.raw","parent":"x"`},
	} {
		bad := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(bad, good) {
			f.Fatalf("%s is not in %s", change[0], good)
		}
		if _, err := parseManifest(bad); err == nil {
			f.Errorf("%s is valid", change[1])
		}
		f.Add(bad)
	}
	f.Add([]byte(`{`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"schema_version":1,"disks":[null]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		if m.SizeBytes() < 0 {
			t.Errorf("size %d", m.SizeBytes())
		}
		for _, d := range m.Disks {
			if strings.ContainsAny(d.File, "/\\\x00") || d.File == "" || d.File == ".." || d.Capacity <= 0 ||
				d.ChunkSize < mib || d.ChunkSize > maxChunkSize {
				t.Errorf("valid disk %+v", d)
			}
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseManifest(again); err != nil {
			t.Errorf("not valid any more: %v: %s", err, again)
		}
	})
}

func FuzzChunkTable(f *testing.F) {
	const id = "0123456789abcdef0123456789abcdef"
	for _, table := range []string{
		tableHead + `{"l":1048576,"o":"` + id + `"},{"s":1048576,"l":512,"o":"` + id + `"}` + tableTail,
		tableHead + tableTail,
		`{"entries":[{"l":1,"o":"` + id + `"}],"stream":"kopia:indirect","more":{"a":[1]}}`,
		tableHead + `{"l":1048576,"o":"` + id + `"}{"s":1048576,"l":512,"o":"` + id + `"}` + tableTail,
		tableHead + `{"l":1048576,"o":"` + id + `"},` + tableTail,
		tableHead + `{"l":1048576,"o":"` + id + `"}]}]}` + "\n",
		tableHead + `{"s":0,"l":1048576,"o":"` + id + `"}` + tableTail,
		tableHead + `{"s":1e3,"l":0x10,"o":"` + id + `"}` + tableTail,
		tableHead + `{"o":"` + id + `"},{"o":"` + id + `"}]}`,
		tableHead + `{"l":1,"o":"\u0030` + id[1:] + `"}` + tableTail,
		tableHead + `{"l":99999999999999999999,"o":"` + id + `"}` + tableTail,
		`{"stream":"kopia:directory","entries":[]}`,
		tableHead + `{"l":1048576,"o":"I` + id + `"}` + tableTail,
		tableHead + `{"l":-1,"o":"` + id + `"}` + tableTail,
		tableHead + `{"s":5,"l":9223372036854775807,"o":"Zx` + id + `"}` + tableTail,
		tableHead + `{"l":1,"o":""}` + tableTail,
		tableHead + `{"l":1,"o":"zz"}` + tableTail,
		tableHead + `null,null` + tableTail,
		tableHead,
		`{"stream":`,
		`[]`,
		`null`,
		``,
	} {
		f.Add([]byte(table))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var entries []object.IndirectObjectEntry
		table := newTableReader(iotest.OneByteReader(bytes.NewReader(b)))
		e, err := table.next()
		for ; err == nil; e, err = table.next() {
			entries = append(entries, e)
		}
		if !errors.Is(err, errEnd) {
			if !errors.Is(err, errTable) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		if len(entries) > len(b) {
			t.Errorf("%d entries in %d bytes", len(entries), len(b))
		}
		// Kopia itself must make the same of it.
		var want struct {
			Stream  string                       `json:"stream"`
			Entries []object.IndirectObjectEntry `json:"entries"`
		}
		if err := json.NewDecoder(bytes.NewReader(b)).Decode(&want); err != nil ||
			want.Stream != tableStream || !slices.Equal(entries, want.Entries) {
			t.Errorf("entries %v, Kopia reads %v, %v", entries, want.Entries, err)
		}
	})
}
