package provider

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
	"github.com/hashicorp/terraform-plugin-log/tflogtest"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

func TestLazy(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	calls := 0
	answer := func(value int, err error) func(context.Context) (int, error) {
		return func(context.Context) (int, error) {
			calls++
			return value, err
		}
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()

	l := newLazy[int]()
	if _, ok := l.peek(); ok {
		t.Error("there is a value before it was made")
	}
	// One who is cancelled, or finds no repository yet, doesn't spoil it for the others.
	for _, c := range []struct {
		ctx context.Context
		err error
	}{{stopped, context.Canceled}, {t.Context(), repository.ErrNoRepository}, {t.Context(), repository.ErrUnreachable}} {
		if _, err := l.get(c.ctx, answer(0, c.err)); !errors.Is(err, c.err) {
			t.Errorf("got %v, want %v", err, c.err)
		}
	}
	calls = 0
	for range 3 {
		if v, err := l.get(t.Context(), answer(7, nil)); v != 7 || err != nil {
			t.Errorf("got %d, %v", v, err)
		}
	}
	if v, ok := l.peek(); calls != 1 || !ok || v != 7 {
		t.Errorf("made %d times, then %d, %v", calls, v, ok)
	}

	failed := newLazy[int]()
	calls = 0
	for range 3 {
		if _, err := failed.get(t.Context(), answer(0, refused)); !errors.Is(err, refused) {
			t.Errorf("got %v, want %v", err, refused)
		}
	}
	if _, ok := failed.peek(); calls != 1 || ok {
		t.Errorf("a failure was repeated: %d calls", calls)
	}
}

// A closing is a hypervisor of which only closing counts.
type closing struct {
	fakeHypervisor
	closed atomic.Bool
}

func (c *closing) Close(context.Context) error {
	c.closed.Store(true)
	return nil
}

// TestSessionEnd_actions has an action under way when the process ends: it may still use the connection, but not for ever.
func TestSessionEnd_actions(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]bool{"in time": true, "too late": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				hv := &closing{}
				s := newSession(settings{}, backends{}, "")
				if _, err := s.hv.get(t.Context(), func(context.Context) (hypervisor.Hypervisor, error) { return hv, nil }); err != nil {
					t.Fatal(err)
				}
				s.invoked.Add(1)
				ctx, cancel := context.WithTimeout(t.Context(), closeTimeout)
				defer cancel()
				go s.end(ctx)
				synctest.Wait()
				if hv.closed.Load() {
					t.Error("the connection was closed while an action was under way")
				}
				if ends {
					s.invoked.Done()
				} else {
					time.Sleep(closeTimeout - 1) // of the bubble's clock
					defer s.invoked.Done()
				}
				synctest.Wait()
				if !hv.closed.Load() {
					t.Error("the connection was not closed")
				}
			})
		})
	}
}

func TestSettingsFromEnvironment(t *testing.T) {
	t.Parallel()
	r := newRPC(t, nil, nil)
	typ, ok := r.schema.Provider.ValueType().(tftypes.Object)
	if !ok {
		t.Fatal("the provider's configuration is no object")
	}
	env := map[string]string{
		envServer: "env-server", envUser: "env-user", envPassword: "env-password", envAllowUnverifiedSSL: "1",
		envRepositoryPath: "/env", envRepositoryPassword: "env-repository",
	}
	for name, c := range map[string]struct {
		config map[string]any
		want   vsphereSettings
		path   string
	}{
		"nothing is written": {
			want: vsphereSettings{server: "env-server", user: "env-user", password: secret.New("env-password"), allowUnverifiedSSL: true},
			path: "/env",
		},
		"what is written wins": {
			config: map[string]any{
				"vsphere": map[string]any{
					"server": "s", "allow_unverified_ssl": false, "transports": []any{"export"}, "max_transfers": map[string]any{"per_disk": 2, "per_vm": 3, "per_host": 5, "per_server": 6}},
				"repository": map[string]any{"path": "/written"},
			},
			want: vsphereSettings{server: "s", user: "env-user", password: secret.New("env-password"), transports: []string{"export"}, perDisk: 2, perVM: 3, perHost: 5, perServer: 6},
			path: "/written",
		},
		"a thumbprint is not undone": {
			config: map[string]any{"vsphere": map[string]any{"thumbprint": "ab"}},
			want:   vsphereSettings{server: "env-server", user: "env-user", password: secret.New("env-password"), thumbprint: "ab"},
			path:   "/env",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var model providerModel
			config := tfsdk.Config{Schema: providerSchema(), Raw: r.value(typ, or0(c.config))}
			if diags := config.Get(t.Context(), &model); diags.HasError() {
				t.Fatal(diags)
			}
			got, diags := model.settings(t.Context(), func(name string) string { return env[name] })
			if diags.HasError() {
				t.Fatal(diags)
			}
			if !reflect.DeepEqual(*got.vsphere, c.want) {
				t.Errorf("got %+v, want %+v", *got.vsphere, c.want)
			}
			if got.repository.path != c.path || got.repository.password.Reveal() != "env-repository" {
				t.Errorf("got %+v", *got.repository)
			}
		})
	}
}

// or0 is a configuration in which nothing is written, where there is none.
func or0(config map[string]any) map[string]any {
	if config == nil {
		return map[string]any{}
	}
	return config
}

func TestAtMostOneHypervisor(t *testing.T) {
	t.Parallel()
	object := tftypes.Object{AttributeTypes: map[string]tftypes.Type{"uri": tftypes.String}}
	both := tftypes.Object{AttributeTypes: map[string]tftypes.Type{"one": object, "other": object}}
	block := schema.SingleNestedAttribute{Optional: true, Attributes: map[string]schema.Attribute{"uri": schema.StringAttribute{Optional: true}}}
	written := tftypes.NewValue(object, map[string]tftypes.Value{"uri": tftypes.NewValue(tftypes.String, nil)})
	null := tftypes.NewValue(object, nil)
	for name, c := range map[string]struct {
		one, other tftypes.Value
		want       bool
	}{
		"none":    {null, null, false},
		"one":     {written, null, false},
		"both":    {written, written, true},
		"unknown": {written, tftypes.NewValue(object, tftypes.UnknownValue), false},
	} {
		req := provider.ValidateConfigRequest{Config: tfsdk.Config{
			Schema: schema.Schema{Attributes: map[string]schema.Attribute{"one": block, "other": block}},
			Raw:    tftypes.NewValue(both, map[string]tftypes.Value{"one": c.one, "other": c.other}),
		}}
		var resp provider.ValidateConfigResponse
		atMostOneHypervisor{names: []string{"one", "other"}}.ValidateProvider(t.Context(), req, &resp)
		if resp.Diagnostics.HasError() != c.want {
			t.Errorf("%s: %v", name, resp.Diagnostics)
		}
		if c.want && !strings.Contains(resp.Diagnostics[0].Detail(), "this one has one and other") {
			t.Errorf("%s: %v", name, resp.Diagnostics)
		}
	}
}

func TestLogHandler(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	ctx := tflogtest.RootLogger(t.Context(), &out)
	log := slog.New(logHandler{}).With("vm", "web01").WithGroup("transfer").With("disk", 1)
	log.WarnContext(ctx, "slow", "password", secret.New("hunter2"), slog.Group("rate", "bytes", int64(5<<30)), "took", 1500*time.Millisecond+time.Microsecond)
	log.DebugContext(ctx, "fine")
	entries, err := tflogtest.MultilineJSONDecode(&out)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 || entries[1]["@level"] != "debug" {
		t.Fatalf("got %v", entries)
	}
	for name, want := range map[string]any{
		"@message": "slow", "@level": "warn", "vm": "web01", "transfer.disk": "1", "transfer.rate.bytes": "5368709120",
		"transfer.took":     "1.5s",
		"transfer.password": "(sensitive)",
	} {
		if got := entries[0][name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// A lastHypervisor notes whether the repository was closed before it is.
type lastHypervisor struct {
	fakeHypervisor
	temp         string // where an open repository has a directory
	closed, late bool
}

func (h *lastHypervisor) Close(context.Context) error {
	entries, err := os.ReadDir(h.temp)
	h.closed, h.late = true, len(entries) == 0
	return err
}

// The repository is closed first, and then the connection.
func TestSessionEnd(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	repo, err := repository.Open(t.Context(), repository.Config{
		Path: filepath.Join(t.TempDir(), "backups"), Password: secret.New(repositoryPassword), Create: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	hv := &lastHypervisor{temp: temp}
	s := newSession(settings{vsphere: &vsphereSettings{}, repository: &repositorySettings{}}, backends{
		hypervisor: func(context.Context, settings, *slog.Logger) (hypervisor.Hypervisor, error) { return hv, nil },
		repository: func(context.Context, repositorySettings, bool) (*repository.Repository, error) { return repo, nil },
	}, "test")
	var all sessions
	all.add(s)
	if _, err := s.backups(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.end(t.Context())
	if !hv.closed || !hv.late {
		t.Errorf("connection closed: %v, after the repository: %v", hv.closed, hv.late)
	}
}
