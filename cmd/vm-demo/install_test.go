package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// A site mimics releases.hashicorp.com: index.json of a product, and for each version an archive,
// the checksums and their signature.
type site struct {
	releaseSite
	mu       sync.Mutex
	files    map[string]string // path to file
	requests []string
}

// newSite serves an archive as a version of Terraform. change may spoil what is served, before it is signed.
func newSite(t *testing.T, version, archive string, change func(sums string) string) *site {
	t.Helper()
	key, err := openpgp.NewEntity("Releases", "", "releases@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	var public, signature bytes.Buffer
	w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("terraform_%s_%s_%s.zip", version, runtime.GOOS, runtime.GOARCH)
	sums := fmt.Sprintf("%x  %s\n", fileSum(t, archive), name)
	if change != nil {
		sums = change(sums)
	}
	if err := openpgp.DetachSign(&signature, key, strings.NewReader(sums), nil); err != nil {
		t.Fatal(err)
	}
	sumsName := fmt.Sprintf("terraform_%s_SHA256SUMS", version)
	signatures := []string{fmt.Sprintf("%s.%s.sig", sumsName, key.PrimaryKey.KeyIdShortString()), sumsName + ".sig"}
	index := map[string]any{"name": "terraform", "versions": map[string]any{version: map[string]any{
		"name": "terraform", "version": version,
		"shasums": sumsName, "shasums_signature": signatures[1], "shasums_signatures": signatures,
		"builds": []map[string]any{{
			"name": "terraform", "version": version, "os": runtime.GOOS, "arch": runtime.GOARCH, "filename": name,
			"url": "https://releases.hashicorp.com/terraform/" + version + "/" + name,
		}},
	}}}
	text, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	base := "/terraform/" + version + "/"
	s := &site{files: map[string]string{base + name: archive}}
	for path, data := range map[string][]byte{
		"/terraform/index.json": text, base + sumsName: []byte(sums),
		base + signatures[0]: signature.Bytes(), base + signatures[1]: signature.Bytes(),
	} {
		s.files[path] = filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(s.files[path], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url, s.publicKey = server.URL, public.String()
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.URL.Path)
	file, ok := s.files[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	switch filepath.Ext(r.URL.Path) {
	case ".json":
		w.Header().Set("Content-Type", "application/json")
	case ".zip":
		w.Header().Set("Content-Type", "application/zip")
	}
	http.ServeFile(w, r, file)
}

// drop takes files away.
func (s *site) drop(suffix string) {
	maps.DeleteFunc(s.files, func(path, _ string) bool { return strings.HasSuffix(path, suffix) })
}

// swap serves another file.
func (s *site) swap(suffix, by string) {
	for path := range s.files {
		if strings.HasSuffix(path, suffix) {
			s.files[path] = by
		}
	}
}

func fileSum(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return h.Sum(nil)
}

// archive makes a zip as HashiCorp's are: the program and a license.
func archive(t *testing.T, program io.Reader) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "terraform.zip"))
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for name, content := range map[string]io.Reader{"LICENSE.txt": strings.NewReader("license"), "terraform": program} {
		if name == "terraform" && runtime.GOOS == "windows" {
			name += ".exe"
		}
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// binaries is a directory of built programs, with one in it.
func binaries(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "vm-lab"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return bin
}

func filesIn(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return strings.Join(names, " ")
}

// Where neither terraform nor tofu is on PATH, the demo installs Terraform, once, and that runs.
func TestFindTerraform_installs(t *testing.T) {
	original := find("terraform", "tofu")
	if original == "" {
		t.Skip("needs a program to install: put terraform or tofu on PATH")
	}
	want, err := versionOf(t.Context(), original)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(original)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	site := newSite(t, "1.8.5", archive(t, f), nil)
	bin := binaries(t)
	t.Setenv("PATH", t.TempDir())
	if program := find("terraform", "tofu"); program != "" {
		t.Skipf("%s is where administrators' programs are, and would be used", program)
	}
	for range 2 {
		program, err := findTerraform(t.Context(), bin, site.releaseSite)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(program) != bin || !bytes.Equal(fileSum(t, program), fileSum(t, original)) {
			t.Errorf("%s isn't the program that was to be installed", program)
		}
		if got, err := versionOf(t.Context(), program); err != nil || got != want {
			t.Errorf("it says %q, %v, want %q", got, err, want)
		}
		if files := filesIn(t, bin); files != filepath.Base(program)+" vm-lab" {
			t.Errorf("there are %s", files)
		}
	}
	if n := len(site.requests); n != 4 { // the second time it is there
		t.Errorf("%d requests: %q", n, site.requests)
	}
}

// Whatever is wrong with what the site has, the error says so, and nothing is left behind.
func TestFindTerraform_refuses(t *testing.T) {
	const version = "1.9.0"
	whole := archive(t, strings.NewReader("#!/nowhere\n"))
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	otherSum := func(sums string) string { return strings.Repeat("0", 64) + sums[64:] }
	tests := map[string]struct {
		version string
		archive string
		change  func(sums string) string
		spoil   func(t *testing.T, s *site)
		want    string
	}{
		"the version is too old":   {version: "1.7.5", want: "no matching version"},
		"it has another checksum":  {change: otherSum, want: "signed checksum"},
		"it has no checksum":       {change: func(string) string { return "" }, want: "no checksum"},
		"it is no program":         {want: "doesn't run"},
		"it is no archive":         {archive: text, want: "incomplete"},
		"there is no site":         {spoil: func(_ *testing.T, s *site) { clear(s.files) }, want: "404"},
		"there is no archive":      {spoil: func(_ *testing.T, s *site) { s.drop(".zip") }, want: "404"},
		"there are no checksums":   {spoil: func(_ *testing.T, s *site) { s.drop("_SHA256SUMS") }, want: "404"},
		"there is no signature":    {spoil: func(_ *testing.T, s *site) { s.drop(".sig") }, want: "404"},
		"somebody else signed":     {spoil: func(t *testing.T, s *site) { s.publicKey = newSite(t, version, whole, nil).publicKey }, want: "signature"},
		"it isn't what was signed": {spoil: func(_ *testing.T, s *site) { s.swap(".zip", text) }, want: "signed checksum"},
	}
	t.Setenv("PATH", t.TempDir())
	if program := find("terraform", "tofu"); program != "" {
		t.Skipf("%s is where administrators' programs are, and would be used", program)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.version == "" {
				test.version = version
			}
			if test.archive == "" {
				test.archive = whole
			}
			site := newSite(t, test.version, test.archive, test.change)
			if test.spoil != nil {
				test.spoil(t, site)
			}
			bin := binaries(t)
			// What an attempt that was killed left must not pass for what was downloaded.
			if err := os.WriteFile(filepath.Join(bin, "terraform"), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
			program, err := findTerraform(t.Context(), bin, site.releaseSite)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "can't be installed") {
				t.Errorf("got %q, %v, want an error that says %q", program, err, test.want)
			}
			if files := filesIn(t, bin); files != "terraform vm-lab" {
				t.Errorf("there are %s", files)
			}
			if data, err := os.ReadFile(filepath.Join(bin, "terraform")); err != nil || string(data) != "half" {
				t.Errorf("what was there has become %q, %v", data, err)
			}
		})
	}
}
