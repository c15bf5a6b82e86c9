package storagetest

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // which B2 asks for
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// objects are the objects of a bucket, in memory.
type objects struct {
	mu  sync.Mutex
	all map[string]object
}

type object struct {
	content []byte
	at      time.Time
	sha1    string
	locked  time.Time // until then; zero: not at all
}

func (o *objects) put(name string, content []byte, locked time.Time) object {
	// Services give whole seconds, in HTTP.
	made := object{content: content, at: time.Now().Truncate(time.Second), locked: locked}.hashed()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[string]object{}
	}
	o.all[name] = made
	return made
}

func (o *objects) get(name string) (object, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	found, ok := o.all[name]
	return found, ok
}

func (o object) hashed() object {
	sum := sha1.Sum(o.content) //nolint:gosec // as above
	o.sha1 = hex.EncodeToString(sum[:])
	return o
}

// remove reports whether the object was there, and could be removed.
func (o *objects) remove(name string) (found, removed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, found := o.all[name]
	if found && time.Now().Before(old.locked) {
		return true, false
	}
	delete(o.all, name)
	return found, found
}

// list names objects from a name on, at most n, and the one that comes next; empty: there is none.
func (o *objects) list(prefix, from string, n int) (names []string, next string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(o.all)) {
		switch {
		case !strings.HasPrefix(name, prefix) || name < from:
		case len(names) == n:
			return names, name
		default:
			names = append(names, name)
		}
	}
	return names, ""
}

// serve gives an object, or the range of it that is asked for.
func (o object) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Etag", `"`+o.sha1+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", o.at, bytes.NewReader(o.content))
}
