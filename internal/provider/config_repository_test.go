package provider

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// settingsOf are the settings of a provider with a repository.
func settingsOf(t *testing.T, config map[string]any, env map[string]string) (settings, diag.Diagnostics) {
	t.Helper()
	r := newRPC(t, nil, nil)
	var model providerModel
	raw := r.value(r.schema.Provider.ValueType().(tftypes.Object), map[string]any{"repository": config})
	if diags := (tfsdk.Config{Schema: providerSchema(), Raw: raw}).Get(t.Context(), &model); diags.HasError() {
		t.Fatal(diags)
	}
	return model.settings(t.Context(), func(name string) string { return env[name] })
}

// TestPlaces reads every kind of place, from what is written and from the environment.
func TestPlaces(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	aws := map[string]string{
		"AWS_ACCESS_KEY_ID": "env-id", "AWS_SECRET_ACCESS_KEY": "env-key", "AWS_SESSION_TOKEN": "env-token", "AWS_REGION": "env-region",
		"AWS_ENDPOINT_URL": "https://other", "AWS_ENDPOINT_URL_S3": "https://env:9000", "AWS_CA_BUNDLE": ca,
	}
	azure := map[string]string{"AZURE_STORAGE_ACCOUNT": "env-account", "AZURE_STORAGE_KEY": "env-key", "AZURE_STORAGE_SAS_TOKEN": "env-sas",
		"AZURE_TENANT_ID": "env-tenant", "AZURE_CLIENT_ID": "env-client", "AZURE_CLIENT_SECRET": "env-secret", "AZURE_FEDERATED_TOKEN_FILE": "/env"}
	for name, c := range map[string]struct {
		place  string
		config map[string]any
		env    map[string]string
		want   repository.Place
	}{
		"s3 of the environment": {"s3", map[string]any{"bucket": "b"}, aws, &repository.S3{
			Bucket: "b", Endpoint: "https://env:9000", Region: "env-region", AccessKeyID: "env-id", SecretAccessKey: secret.New("env-key"),
			SessionToken: secret.New("env-token"), CA: []byte("pem"),
		}},
		"s3 as written": {"s3", map[string]any{
			"bucket": "b", "prefix": "p/", "endpoint": "e", "region": "r", "access_key_id": "i", "secret_access_key": "k",
			"allow_unverified_ssl": true, "object_lock": map[string]any{"mode": "governance", "days": 30},
		}, aws, &repository.S3{
			Bucket: "b", Prefix: "p/", Endpoint: "e", Region: "r", AccessKeyID: "i", SecretAccessKey: secret.New("k"),
			AllowUnverifiedSSL: true, Lock: &repository.ObjectLock{Mode: repository.LockGovernance, Period: 30 * 24 * time.Hour},
		}},
		"s3 by a role": {"s3", map[string]any{"bucket": "b", "instance_role": true}, nil, &repository.S3{Bucket: "b", InstanceRole: true}},
		"azure of the environment": {"azure", map[string]any{"container": "c"}, azure, &repository.Azure{
			Account: "env-account", Container: "c", SASToken: secret.New("env-sas"), Key: secret.New("env-key"), TenantID: "env-tenant",
			ClientID: "env-client", ClientSecret: secret.New("env-secret"), FederatedTokenFile: "/env",
		}},
		"azure as written": {"azure", map[string]any{
			"account": "a", "container": "c", "key": "k", "endpoint": "e", "object_lock": map[string]any{"days": 2},
		}, map[string]string{"AZURE_STORAGE_SAS_TOKEN": "env-sas"}, &repository.Azure{
			Account: "a", Container: "c", Key: secret.New("k"), Endpoint: "e",
			Lock: &repository.ObjectLock{Mode: repository.LockCompliance, Period: repository.MinLockPeriod},
		}},
		"azure, a key of another account in the environment": {"azure", map[string]any{"account": "a", "container": "c", "tenant_id": "t"},
			azure, &repository.Azure{Account: "a", Container: "c", TenantID: "t", ClientID: "env-client",
				ClientSecret: secret.New("env-secret"), FederatedTokenFile: "/env"}},
		"azure, another account in the environment": {"azure", map[string]any{"account": "a", "container": "c"}, azure, &repository.Azure{
			Account: "a", Container: "c", TenantID: "env-tenant", ClientID: "env-client", ClientSecret: secret.New("env-secret"),
			FederatedTokenFile: "/env",
		}},
		"gcs": {"gcs", map[string]any{"bucket": "b", "prefix": "p/"}, map[string]string{"GS_ACCESS_KEY_ID": "i", "GS_SECRET_ACCESS_KEY": "k"},
			&repository.GCS{Bucket: "b", Prefix: "p/", AccessID: "i", Secret: secret.New("k")}},
		"b2": {"b2", map[string]any{"bucket": "b"}, map[string]string{"B2_APPLICATION_KEY_ID": "i", "B2_APPLICATION_KEY": "k"},
			&repository.B2{Bucket: "b", KeyID: "i", Key: secret.New("k")}},
		"sftp of the environment": {"sftp", map[string]any{"host": "h", "user": "u", "path": "/p"}, map[string]string{envSFTPKeyFile: "/k"},
			&repository.SFTP{Host: "h", User: "u", Path: "/p", KeyFile: "/k"}},
		"sftp as written": {"sftp", map[string]any{"host": "h", "port": 2222, "user": "u", "path": "/p", "password": "w", "known_hosts": "l"},
			map[string]string{envSFTPKeyFile: "/k"},
			&repository.SFTP{Host: "h", Port: 2222, User: "u", Path: "/p", Password: secret.New("w"), KnownHosts: "l"}},
		"webdav": {"webdav", map[string]any{"url": "https://h/d"}, map[string]string{envWebDAVUser: "u", envWebDAVPassword: "w"},
			&repository.WebDAV{URL: "https://h/d", User: "u", Password: secret.New("w")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{envRepositoryPath: "/not/this", envRepositoryPassword: "p"}
			for k, v := range c.env {
				env[k] = v
			}
			got, diags := settingsOf(t, map[string]any{c.place: c.config}, env)
			if diags.HasError() {
				t.Fatal(diags)
			}
			if got.repository.path != "" || !reflect.DeepEqual(got.repository.place, c.want) {
				t.Errorf("path %q, got %+v, want %+v", got.repository.path, got.repository.place, c.want)
			}
			unknown, _ := settingsOf(t, map[string]any{c.place: unknown{}}, env)
			if unknown.repositoryUnknown != "repository."+c.place {
				t.Errorf("unknown is %q", unknown.repositoryUnknown)
			}
		})
	}
}

// TestPlacesMissing names what a place lacks.
func TestPlacesMissing(t *testing.T) {
	t.Parallel()
	for place, c := range map[string]struct {
		config map[string]any
		want   []string
	}{
		"s3":    {map[string]any{"bucket": "b", "ca_file": "/no/such"}, []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "/no/such"}},
		"azure": {map[string]any{"container": "c"}, []string{"AZURE_STORAGE_ACCOUNT", "repository.azure has no credentials"}},
		"gcs":   {map[string]any{"bucket": "b"}, []string{"GS_ACCESS_KEY_ID", "GS_SECRET_ACCESS_KEY"}},
		"b2":    {map[string]any{"bucket": "b"}, []string{"B2_APPLICATION_KEY_ID", "B2_APPLICATION_KEY"}},
		"sftp":  {map[string]any{"host": "h", "user": "u", "path": "/p"}, []string{envSFTPKeyFile, envSFTPPassword}},
	} {
		_, diags := settingsOf(t, map[string]any{place: c.config}, nil)
		var text strings.Builder
		for _, d := range diags {
			text.WriteString(d.Summary() + ": " + d.Detail() + "\n")
		}
		for _, want := range append(c.want, envRepositoryPassword) {
			if !strings.Contains(text.String(), want) {
				t.Errorf("%s: the errors don't have %s:\n%s", place, want, &text)
			}
		}
	}
}

// TestInstanceRole refuses a role beside keys that would be used instead.
func TestInstanceRole(t *testing.T) {
	t.Parallel()
	_, diags := settingsOf(t, map[string]any{"s3": map[string]any{"bucket": "b", "instance_role": true}},
		map[string]string{envRepositoryPassword: "p", "AWS_ACCESS_KEY_ID": "i"})
	if len(diags) != 1 || !strings.Contains(diags[0].Detail(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("it says %v", diags)
	}
}

// TestLongLock warns of a lock that nobody can lift.
func TestLongLock(t *testing.T) {
	t.Parallel()
	lock := func(mode string, days int) map[string]any { return map[string]any{"mode": mode, "days": days} }
	for name, test := range map[string]struct {
		place string
		lock  map[string]any
		warns bool
	}{
		"a year":                  {"s3", lock("compliance", 365), false},
		"more than a year":        {"s3", lock("compliance", 366), true},
		"that some can lift":      {"s3", lock("governance", 3650), false},
		"on Azure":                {"azure", map[string]any{"days": 366}, true},
		"for some days, on Azure": {"azure", map[string]any{"days": 30}, false},
	} {
		config := map[string]any{"bucket": "b", "access_key_id": "i", "secret_access_key": "k", "object_lock": test.lock}
		if test.place == "azure" {
			config = map[string]any{"account": "a", "container": "c", "key": "k", "object_lock": test.lock}
		}
		_, diags := settingsOf(t, map[string]any{test.place: config}, map[string]string{envRepositoryPassword: "p"})
		if diags.HasError() || (diags.WarningsCount() == 1) != test.warns {
			t.Errorf("%s: %v", name, diags)
		}
	}
}

// TestUnknownIn names the same argument every time.
func TestUnknownIn(t *testing.T) {
	t.Parallel()
	for range 20 {
		if name := unknownIn(map[string]attr.Value{"c": types.StringUnknown(), "b": types.StringUnknown(), "a": types.StringNull()}); name != "b" {
			t.Errorf("unknown is %q", name)
		}
	}
}

// TestRepositoryArguments refuses what can't be, and reads what goes with every place.
func TestRepositoryArguments(t *testing.T) {
	t.Parallel()
	got, diags := settingsOf(t, map[string]any{
		"path": "/p", "password": "p", "encryption": "chacha20-poly1305", "max_outage": "90s",
		"limits": map[string]any{"upload_mib_per_second": 5}, "cache": map[string]any{"directory": "/c", "size_mib": 0},
	}, nil)
	if diags.HasError() {
		t.Fatal(diags)
	}
	want := repositorySettings{
		path: "/p", password: secret.New("p"), encryption: "chacha20-poly1305", maxOutage: 90 * time.Second,
		limits: repository.Limits{Upload: 5 << 20}, cache: repository.Cache{Directory: "/c"},
	}
	if !reflect.DeepEqual(*got.repository, want) {
		t.Errorf("got %+v, want %+v", *got.repository, want)
	}
	for _, compression := range []string{"auto", "zstd-fastest", "s2-default", "none"} {
		got, diags := settingsOf(t, map[string]any{"path": "/p", "password": "p", "compression": compression}, nil)
		if diags.HasError() || got.repository.compression != compression {
			t.Errorf("%s: %+v, %v", compression, got.repository, diags)
		}
	}
	s3 := func(more map[string]any) map[string]any {
		more["bucket"], more["access_key_id"], more["secret_access_key"] = "b", "i", "k"
		return map[string]any{"password": "p", "s3": more}
	}
	for want, config := range map[string]map[string]any{
		"Several Repositories Configured": {"path": "/p", "password": "p", "s3": s3(map[string]any{})["s3"]},
		"must end with a slash":           s3(map[string]any{"prefix": "vm"}),
		"must be between 2":               s3(map[string]any{"object_lock": map[string]any{"mode": "compliance", "days": 1}}),
		`value must be one of`:            s3(map[string]any{"object_lock": map[string]any{"mode": "legal", "days": 9}}),
		"instance_role":                   s3(map[string]any{"instance_role": true}),
		"must begin with a slash":         {"password": "p", "sftp": map[string]any{"host": "h", "user": "u", "path": "p"}},
		"32 bytes (SHA-256)":              {"password": "p", "webdav": map[string]any{"url": "https://h", "thumbprint": "ab"}},
		"is not a duration above zero":    {"path": "/p", "password": "p", "max_outage": "soon"},
		"aes256-gcm":                      {"path": "/p", "password": "p", "encryption": "rot13"},
		`"auto"`:                          {"path": "/p", "password": "p", "compression": "lzma"},
		"must be between 1 and":           {"path": "/p", "password": "p", "limits": map[string]any{"upload_mib_per_second": 0}},
	} {
		if got := show(newRPC(t, nil, nil).configure(map[string]any{"repository": config}), tfprotov6.DiagnosticSeverityError); !strings.Contains(got, want) {
			t.Errorf("errors:\n%s\nwant: %s", got, want)
		}
	}
}
