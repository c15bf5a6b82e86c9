package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
)

// The text of an error shows no address, which may hold a ticket, and the error is still known for what it is.
func TestWithoutURL(t *testing.T) {
	t.Parallel()
	const address = "https://host/nfc/ticket/disk-0.vmdk"
	cut := &url.Error{Op: "Post", URL: address, Err: io.ErrUnexpectedEOF}
	unavailable := &url.Error{Op: "Post", URL: address + "?2", Err: errors.New("503 Service Unavailable")}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"plain":             {err: cut, want: "unexpected EOF"},
		"wrapped":           {err: fmt.Errorf("task-1: %w: %w", errUnknownEnd, cut), want: "task-1: how it ended is not known: unexpected EOF"},
		"two":               {err: errors.Join(cut, unavailable), want: "unexpected EOF\n503 Service Unavailable"},
		"status":            {err: fmt.Errorf("delete: %w", unavailable), want: "delete: 503 Service Unavailable"},
		"in other words":    {err: &otherWords{cut}, want: "unexpected EOF"},
		"taken off already": {err: fmt.Errorf("again: %w", withoutURL(cut)), want: "again: unexpected EOF"},
	} {
		got := withoutURL(c.err)
		if got.Error() != c.want || strings.Contains(got.Error(), "ticket") {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if !errors.Is(got, c.err) || !isAmbiguous(got) {
			t.Errorf("%s: it can't be told any more what %q is", name, got)
		}
	}
	for _, err := range []error{nil, context.Canceled, errGone} {
		if got := withoutURL(err); !errors.Is(got, err) || isAmbiguous(got) != isAmbiguous(err) {
			t.Errorf("%v became %v", err, got)
		}
	}
}

// otherWords is an error that shows the address of the one that it wraps without its text.
type otherWords struct{ err *url.Error }

func (o *otherWords) Error() string { return "asked " + o.err.URL }
func (o *otherWords) Unwrap() error { return o.err }
