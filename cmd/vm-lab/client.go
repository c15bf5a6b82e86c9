package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// chunk is how much one request reads or writes, in bytes.
const chunk = 16 << 20

// httpClient talks to labs, whose certificates are as a rule made at start: what is sent and received is
// no secret, and needs no password either.
var httpClient = &http.Client{Transport: &http.Transport{
	TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	Proxy:           http.ProxyFromEnvironment,
}}

// call sends a request to a lab's controls. base is the lab's URL, with or without its path.
func call(ctx context.Context, base, method, path string, query url.Values, body io.Reader, out io.Writer) error {
	if !strings.Contains(base, "://") {
		base = "https://" + base
	}
	u, err := url.Parse(base)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	u.User, u.Path, u.RawQuery = nil, path, query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return err
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // only read
	if res.StatusCode >= http.StatusBadRequest {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // as much as there is
		return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	_, err = io.Copy(out, res.Body)
	return err
}

// A region is the part of a disk that a command names.
type region struct {
	url            string
	query          url.Values
	offset, length int64
}

func parseRegion(name string, args []string) (region, error) {
	args, err := parse(newFlags(name), args, 5)
	if err != nil {
		return region{}, err
	}
	r := region{url: args[0], query: url.Values{"vm": {args[1]}, "disk": {args[2]}}}
	if _, err := strconv.ParseUint(args[2], 10, 31); err != nil {
		return region{}, fmt.Errorf("%w: disk: %w", errUsage, err)
	}
	for i, v := range []*int64{&r.offset, &r.length} {
		n, err := strconv.ParseUint(args[3+i], 0, 63)
		if err != nil {
			return region{}, fmt.Errorf("%w: %w", errUsage, err)
		}
		*v = int64(n)
	}
	return r, nil
}

// each calls fn for the parts of the region that go into one request each.
func (r region) each(fn func(query url.Values, length int64) error) error {
	for done := int64(0); done < r.length; done += chunk {
		n := min(chunk, r.length-done)
		r.query.Set("offset", strconv.FormatInt(r.offset+done, 10))
		r.query.Set("length", strconv.FormatInt(n, 10))
		if err := fn(r.query, n); err != nil {
			return err
		}
	}
	return nil
}

// write copies standard input to a disk.
func write(ctx context.Context, args []string, in io.Reader) error {
	r, err := parseRegion("write", args)
	if err != nil {
		return err
	}
	return r.each(func(query url.Values, length int64) error {
		p := make([]byte, length)
		if _, err := io.ReadFull(in, p); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("standard input ends before the %d bytes to write", r.length)
			}
			return err
		}
		return call(ctx, r.url, http.MethodPut, "/lab/disk", query, bytes.NewReader(p), io.Discard)
	})
}

// read prints bytes of a disk.
func read(ctx context.Context, args []string, out io.Writer) error {
	r, err := parseRegion("read", args)
	if err != nil {
		return err
	}
	return r.each(func(query url.Values, _ int64) error {
		return call(ctx, r.url, http.MethodGet, "/lab/disk", query, http.NoBody, out)
	})
}

// fault makes calls fail.
func fault(ctx context.Context, args []string) error {
	f := newFlags("fault")
	var x lab.Fault
	f.IntVar(&x.Count, "count", 1, "")
	f.IntVar(&x.After, "after", 0, "")
	f.DurationVar(&x.Delay, "delay", 0, "")
	args, err := parse(f, args, 3)
	if err != nil {
		return err
	}
	x.Method, x.Fault = args[1], args[2]
	body, err := json.Marshal(x)
	if err != nil {
		return err
	}
	return call(ctx, args[0], http.MethodPost, "/lab/fault", nil, bytes.NewReader(body), io.Discard)
}

// status prints what is in a lab.
func status(ctx context.Context, args []string, out io.Writer) error {
	args, err := parse(newFlags("status"), args, 1)
	if err != nil {
		return err
	}
	return call(ctx, args[0], http.MethodGet, "/lab/status", nil, http.NoBody, out)
}
