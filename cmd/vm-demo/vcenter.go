package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"
)

// A vcenter is a session of somebody else on the lab's vCenter: enough of the vSphere API to destroy a
// VM, and to look at its files.
type vcenter struct {
	lab    *lab
	client *http.Client
}

// login opens the session. It trusts the certificate with the lab's fingerprint and no other.
func login(ctx context.Context, l *lab) (*vcenter, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	verify := func(state tls.ConnectionState) error {
		sum := sha256.Sum256(state.PeerCertificates[0].Raw)
		if got := strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":"); got != l.fingerprint {
			return fmt.Errorf("certificate has fingerprint %s", got)
		}
		return nil
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, VerifyConnection: verify, //nolint:gosec // the fingerprint is verified instead
	}}
	v := &vcenter{lab: l, client: &http.Client{Jar: jar, Transport: transport, Timeout: time.Minute}}
	var user, password strings.Builder
	if err := errors.Join(xml.EscapeText(&user, []byte(l.user)), xml.EscapeText(&password, []byte(l.password))); err != nil {
		return nil, err
	}
	return v, v.call(ctx, "Login", "SessionManager", "SessionManager",
		"<userName>"+user.String()+"</userName><password>"+password.String()+"</password>")
}

// logout ends the session.
func (v *vcenter) logout(ctx context.Context) error {
	defer v.client.CloseIdleConnections()
	return v.call(ctx, "Logout", "SessionManager", "SessionManager", "")
}

// call calls a method of a managed object.
func (v *vcenter) call(ctx context.Context, method, kind, id, arguments string) error {
	envelope := fmt.Sprintf(`<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body><%[1]s xmlns="urn:vim25">`+
		`<_this type="%[2]s">%[3]s</_this>%[4]s</%[1]s></Body></Envelope>`, method, kind, id, arguments)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.lab.url, strings.NewReader(envelope))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/xml")
	req.Header.Set("SOAPAction", "urn:vim25/8.0.1.0")
	answer, err := v.do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if bytes.Contains(answer, []byte("Fault>")) {
		return fmt.Errorf("%s: %s", method, answer)
	}
	return nil
}

func (v *vcenter) do(req *http.Request) ([]byte, error) {
	res, err := v.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // only read
	answer, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, answer)
	}
	return answer, err
}

// destroy powers a VM off and deletes it with everything it has.
func (v *vcenter) destroy(ctx context.Context, vm vmStatus) error {
	if vm.PowerState == "poweredOn" {
		if err := v.call(ctx, "PowerOffVM_Task", "VirtualMachine", vm.ID, ""); err != nil {
			return err
		}
		if err := v.until(ctx, func(s labStatus) bool { return power(s, vm.ID) == "poweredOff" }); err != nil {
			return err
		}
	}
	if err := v.call(ctx, "Destroy_Task", "VirtualMachine", vm.ID, ""); err != nil {
		return err
	}
	return v.until(ctx, func(s labStatus) bool { return power(s, vm.ID) == "" })
}

// power is the power state of a VM, "" when it is gone.
func power(s labStatus, id string) string {
	for _, vm := range s.VMs {
		if vm.ID == id {
			return vm.PowerState
		}
	}
	return ""
}

// until waits until the lab is as asked.
func (v *vcenter) until(ctx context.Context, done func(labStatus) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		s, err := v.lab.status(ctx)
		if err != nil {
			return err
		}
		if done(s) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nvram reads the firmware's variables of a VM from its datastore. There may be none.
func (v *vcenter) nvram(ctx context.Context, s labStatus, vm vmStatus) ([]byte, error) {
	for _, f := range s.Files {
		datastore, path, ok := strings.Cut(strings.TrimPrefix(f.Name, "["), "] ")
		if !ok || !strings.HasPrefix(path, vm.Name+"/") || !strings.HasSuffix(path, ".nvram") {
			continue
		}
		query := url.Values{"dcPath": {"DC0"}, "dsName": {datastore}}
		u := url.URL{Scheme: "https", Host: v.lab.endpoint, Path: "/folder/" + path, RawQuery: query.Encode()}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
		if err != nil {
			return nil, err
		}
		data, err := v.do(req)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		return data, nil
	}
	return nil, nil
}
