package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// A memory is a file in memory.
type memory []byte

func (m memory) WriteAt(p []byte, offset int64) (int, error) { return copy(m[offset:], p), nil }

func TestCompareStreams(t *testing.T) {
	t.Parallel()
	want := make([]byte, 300_000)
	copy(want[70_000:], "data")
	copy(want[299_999:], "x")
	got := make(memory, len(want))
	data, err := compareStreams(iotest.HalfReader(bytes.NewReader(want)), bytes.NewReader(want), got)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("equal streams: %v", err)
	}
	if last := 300_000 - 4*64<<10; data != int64(64<<10+last) {
		t.Errorf("%d bytes of data", data)
	}
	for _, at := range []int{0, 65_535, 65_536, 299_999} {
		other := bytes.Clone(want)
		other[at] ^= 1
		if _, err := compareStreams(bytes.NewReader(other), bytes.NewReader(want), got); err == nil {
			t.Errorf("another byte at %d goes unnoticed", at)
		}
	}
	for _, n := range []int{0, 65_536, 299_999} {
		if _, err := compareStreams(bytes.NewReader(want[:n]), bytes.NewReader(want), got); err == nil {
			t.Errorf("a disk cut to %d bytes goes unnoticed", n)
		}
		if _, err := compareStreams(bytes.NewReader(want), bytes.NewReader(want[:n]), got); err == nil {
			t.Errorf("a disk longer than %d bytes goes unnoticed", n)
		}
	}
	if _, err := compareStreams(iotest.ErrReader(os.ErrClosed), bytes.NewReader(nil), got); !errors.Is(err, os.ErrClosed) {
		t.Errorf("an error of reading comes back as %v", err)
	}
}

func TestCompareVMs(t *testing.T) {
	t.Parallel()
	const before = `{"id":"vm-1","bios_uuid":"u","config":{"changeVersion":"7","hardware":{"device":[
		{"key":1000,"busNumber":0},{"key":2000,"capacity":5,"backing":{"uuid":"d","contentId":"1"}}]}},"tags":["a"]}`
	tests := map[string]struct {
		replace, by string
		nvram       string
		same        bool
	}{
		"nothing":           {"", "", "n", true},
		"handle":            {"vm-1", "vm-2", "n", true},
		"version":           {`"7"`, `"8"`, "n", true},
		"content ID":        {`"contentId":"1"`, `"contentId":"2"`, "n", true},
		"a device is gone":  {`{"key":1000,"busNumber":0},`, ``, "n", false},
		"BIOS UUID":         {`"u"`, `"v"`, "n", false},
		"disk UUID":         {`"d"`, `"e"`, "n", false},
		"a setting is gone": {`,"capacity":5`, ``, "n", false},
		"a setting more":    {`"busNumber":0`, `"busNumber":0,"shared":true`, "n", false},
		"another type":      {`"capacity":5`, `"capacity":"5"`, "n", false},
		"a tag more":        {`["a"]`, `["a","b"]`, "n", false},
		"NVRAM":             {"", "", "m", false},
		"NVRAM is gone":     {"", "", "", false},
		"devices swap places": {`{"key":1000,"busNumber":0},
		{"key":2000,"capacity":5,"backing":{"uuid":"d","contentId":"1"}}`,
			`{"key":2000,"capacity":5,"backing":{"uuid":"d","contentId":"1"}},{"key":1000,"busNumber":0}`, "n", true},
	}
	for name, test := range tests {
		after := strings.Replace(before, test.replace, test.by, 1)
		n, err := compareVMs(parseVM(t, before, "n"), parseVM(t, after, test.nvram))
		if (err == nil) != test.same || n == 0 {
			t.Errorf("%s: %d agree, %v", name, n, err)
		}
	}
}

func parseVM(t *testing.T, text, nvram string) vmStatus {
	t.Helper()
	vm := vmStatus{nvram: []byte(nvram)}
	if err := json.Unmarshal([]byte(text), &vm.all); err != nil {
		t.Fatal(err)
	}
	return vm
}

// What differences finds, written over the one image, gives the other.
func TestDifferences(t *testing.T) {
	t.Parallel()
	const capacity = 5<<20 + 512
	before, after := make([]byte, capacity), make([]byte, capacity)
	for _, at := range []int{0, 5, 4096, 100 << 10, 1<<20 - 1, 1 << 20, 3 << 20, capacity - 1} {
		after[at] = byte(at%250) + 1
	}
	a, b := writeImage(t, before), writeImage(t, after)
	changes, err := differences(a, b)
	if err != nil {
		t.Fatal(err)
	}
	written := 0
	for _, c := range changes {
		written += copy(before[c.offset:], c.data)
	}
	if !bytes.Equal(before, after) {
		t.Error("the changes don't make the one image the other")
	}
	if len(changes) != 5 || written > 40<<10 {
		t.Errorf("%d changes of %d bytes", len(changes), written)
	}
	if none, err := differences(a, a); err != nil || len(none) != 0 {
		t.Errorf("%d changes of an image to itself, %v", len(none), err)
	}
}

func writeImage(t *testing.T, data []byte) image {
	t.Helper()
	img := image{filepath.Join(t.TempDir(), "image.raw"), int64(len(data))}
	if err := os.WriteFile(img.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return img
}

// Both ways of making the file system hold the files, and change little when files do.
func TestMakeFileSystem(t *testing.T) {
	t.Parallel()
	files := &guestFiles{dir: filepath.Join(t.TempDir(), "files")}
	for _, name := range []string{"srv/a/one.go", "srv/a/two.go", "srv/b/three.go", "srv/b/four.bin"} {
		if err := files.add(name, []byte(strings.Repeat("content of "+name+"\n", 3000))); err != nil {
			t.Fatal(err)
		}
	}
	spoilt := false
	ways := map[string]func(image) error{
		"tar2ext4": func(img image) error { return files.convert(t.Context(), img, "../../tools/ext4/go.mod") },
		"whatever is there": func(img image) error {
			_, err := files.makeFileSystem(t.Context(), img, "../../tools")
			return err
		},
	}
	images := map[string][]image{}
	for range 2 {
		for name, way := range ways {
			img := image{filepath.Join(t.TempDir(), "disk.raw"), 24 << 20}
			if err := errors.Join(makeSparse(img), way(img)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if info, err := os.Stat(img.path); err != nil || info.Size() != img.capacity {
				t.Errorf("%s: %v, %v", name, info, err)
			}
			data, err := os.ReadFile(img.path)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(data, []byte("content of srv/a/one.go")) == spoilt || !bytes.Contains(data, []byte("content of srv/b/four.bin")) {
				t.Errorf("%s, spoilt %v: the image doesn't hold the files", name, spoilt)
			}
			images[name] = append(images[name], img)
		}
		if n, _, err := files.spoil("srv/"); err != nil || n != 3 {
			t.Fatalf("%d files spoilt, %v", n, err)
		}
		spoilt = true
	}
	for name, pair := range images {
		changes, err := differences(pair[0], pair[1])
		written := 0
		for _, c := range changes {
			written += len(c.data)
		}
		if err != nil || written == 0 || written > 2<<20 {
			t.Errorf("%s: %d bytes changed, %v", name, written, err)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 10 << 30: "10.0 GiB", 1 << 60: "1024.0 PiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}
