package provider

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

const (
	envRepositoryPath     = "VM_REPOSITORY_PATH"
	envRepositoryPassword = "VM_REPOSITORY_PASSWORD" //nolint:gosec // the name of a variable, not a password
)

// placeNames are the arguments of the repository of which at most one may be written.
var placeNames = []string{"path", "s3", "azure", "gcs", "b2", "sftp", "webdav"}

type repositoryModel struct {
	Path        types.String `tfsdk:"path"`
	S3          types.Object `tfsdk:"s3"`
	Azure       types.Object `tfsdk:"azure"`
	GCS         types.Object `tfsdk:"gcs"`
	B2          types.Object `tfsdk:"b2"`
	SFTP        types.Object `tfsdk:"sftp"`
	WebDAV      types.Object `tfsdk:"webdav"`
	Password    types.String `tfsdk:"password"`
	Compression types.String `tfsdk:"compression"`
	Encryption  types.String `tfsdk:"encryption"`
	MaxOutage   types.String `tfsdk:"max_outage"`
	Limits      types.Object `tfsdk:"limits"`
	Cache       types.Object `tfsdk:"cache"`
}

type limitsModel struct {
	Upload   types.Int64 `tfsdk:"upload_mib_per_second"`
	Download types.Int64 `tfsdk:"download_mib_per_second"`
}

type cacheModel struct {
	Directory types.String `tfsdk:"directory"`
	Size      types.Int64  `tfsdk:"size_mib"`
}

type repositorySettings struct {
	path        string // empty: place
	place       repository.Place
	password    secret.String
	compression string // empty: the default
	encryption  string // as above
	limits      repository.Limits
	cache       repository.Cache
	maxOutage   time.Duration // zero: the default
}

func repositoryAttribute() schema.SingleNestedAttribute {
	attributes := map[string]schema.Attribute{
		"path": schema.StringAttribute{
			MarkdownDescription: "The directory that holds the repository, a Kopia repository. The first " +
				"backup creates it, in a parent directory that exists. Or `" + envRepositoryPath + "`.",
			Optional:   true,
			Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"password": schema.StringAttribute{
			MarkdownDescription: "The password that encrypts the repository. Without it nobody can read the " +
				"backups again. Or `" + envRepositoryPassword + "`.",
			Optional:   true,
			Sensitive:  true,
			Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"compression": schema.StringAttribute{
			MarkdownDescription: "How disks are compressed: `zstd-fastest`, or `s2-default`, which takes up to a sixth more space and a third " +
				"less processor time, or `none`, or `auto`. That takes `s2-default` while processors are what a backup waits " +
				"for, and `zstd-fastest` while it is the hypervisor, the network or the storage. It may be another for every " +
				"backup; what is in the repository already isn't stored again. Default: `auto`.",
			Optional: true,
			Validators: []validator.String{stringvalidator.OneOf(string(repository.CompressionAuto),
				string(repository.CompressionZstd), string(repository.CompressionS2), string(repository.CompressionNone))},
		},
		"encryption": schema.StringAttribute{
			MarkdownDescription: "How the repository is encrypted when it is created: `aes256-gcm`, or `chacha20-poly1305`, which takes less " +
				"time on processors without instructions for AES. One that is there must be encrypted in this way, if it is written. " +
				"Default: `aes256-gcm` for a new one.",
			Optional: true,
			Validators: []validator.String{stringvalidator.OneOf(string(repository.EncryptionAES),
				string(repository.EncryptionChaCha))},
		},
		"limits": schema.SingleNestedAttribute{
			MarkdownDescription: "How much is written to and read from the repository, by this process and on average over a minute.",
			Optional:            true,
			Attributes: map[string]schema.Attribute{
				"upload_mib_per_second":   limitAttribute("Written, after compression"),
				"download_mib_per_second": limitAttribute("Read, before it is decompressed"),
			},
		},
		"cache": schema.SingleNestedAttribute{
			MarkdownDescription: "Where the index of a repository that isn't in a `path` is kept on this machine, in encrypted form. " +
				"Without it, every plan reads all of it again: about 100 MB for each TiB of different data.",
			Optional: true,
			Attributes: map[string]schema.Attribute{
				"directory": optionalText("The directory, which is created. Default: `terraform-provider-vm` in the user's directory for caches."),
				"size_mib": schema.Int64Attribute{
					MarkdownDescription: "How large it may become. `0`: there is no cache. Default: `1024`.", Optional: true,
					Validators: []validator.Int64{int64validator.Between(0, 1<<20)},
				},
			},
		},
		"max_outage": schema.StringAttribute{
			MarkdownDescription: "How long what is under way waits for storage that can't be reached, other than a `path`. It goes on " +
				"where it was when the storage is back, and fails when it isn't. A duration above zero, such as `\"90s\"`. Default: `\"5m\"`.",
			Optional:   true,
			Validators: []validator.String{positiveDuration{}},
		},
	}
	for name, attribute := range placeAttributes() {
		attributes[name] = attribute
	}
	return schema.SingleNestedAttribute{
		MarkdownDescription: "Where backups are kept: needed only by backups and by restores from them. It is in one of `path`, " +
			"`s3`, `azure`, `gcs`, `b2`, `sftp` and `webdav`. Which one to choose, and what each needs: " +
			"[Repositories](guides/repositories.md).",
		Optional:   true,
		Attributes: attributes,
	}
}

func (m repositoryModel) settings(
	ctx context.Context, getenv func(string) string, diags *diag.Diagnostics,
) (*repositorySettings, string) {
	objects := map[string]types.Object{"s3": m.S3, "azure": m.Azure, "gcs": m.GCS, "b2": m.B2, "sftp": m.SFTP, "webdav": m.WebDAV}
	values := map[string]attr.Value{"path": m.Path, "password": m.Password, "compression": m.Compression,
		"encryption": m.Encryption, "max_outage": m.MaxOutage, "limits": m.Limits, "cache": m.Cache}
	for name, object := range objects {
		values[name] = object
	}
	root := path.Root("repository")
	if name := unknownIn(values); name != "" {
		return nil, "repository." + name
	}
	s := &repositorySettings{
		password:    secret.New(required(m.Password, root.AtName("password"), envRepositoryPassword, getenv, diags)),
		compression: m.Compression.ValueString(),
		encryption:  m.Encryption.ValueString(),
		limits:      readLimits(ctx, m.Limits, diags),
		cache:       readCache(ctx, m.Cache, diags),
	}
	s.maxOutage, _ = time.ParseDuration(m.MaxOutage.ValueString()) // validated; zero where there is none
	for name, object := range objects {
		if !object.IsNull() {
			s.place = places[name](ctx, object, placeReader{root: root.AtName(name), getenv: getenv, diags: diags})
		}
	}
	if s.place == nil {
		s.path = required(m.Path, root.AtName("path"), envRepositoryPath, getenv, diags)
	}
	return s, ""
}

const (
	mib              = 1 << 20
	standardCacheMiB = 1024
)

func limitAttribute(what string) schema.Int64Attribute {
	return schema.Int64Attribute{
		MarkdownDescription: what + ", in MiB per second. Default: there is no limit.", Optional: true,
		Validators: []validator.Int64{int64validator.Between(1, mib)},
	}
}

func readLimits(ctx context.Context, object types.Object, diags *diag.Diagnostics) repository.Limits {
	var m limitsModel
	if !object.IsNull() {
		diags.Append(object.As(ctx, &m, basetypes.ObjectAsOptions{})...)
	}
	return repository.Limits{Upload: m.Upload.ValueInt64() * mib, Download: m.Download.ValueInt64() * mib}
}

func readCache(ctx context.Context, object types.Object, diags *diag.Diagnostics) repository.Cache {
	var m cacheModel
	if !object.IsNull() {
		diags.Append(object.As(ctx, &m, basetypes.ObjectAsOptions{})...)
	}
	c := repository.Cache{Directory: m.Directory.ValueString(), Size: standardCacheMiB * mib}
	if !m.Size.IsNull() {
		c.Size = m.Size.ValueInt64() * mib
	}
	if c.Directory == "" {
		if base, err := os.UserCacheDir(); err == nil { // else there is none
			c.Directory = filepath.Join(base, "terraform-provider-vm")
		}
	}
	return c
}

// unknownIn names the first value, by name, that is not known yet, or is an object with one in it; empty: all are known.
func unknownIn(values map[string]attr.Value) string {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		if value.IsUnknown() {
			return name
		}
		if object, ok := value.(types.Object); ok {
			if inner := unknownIn(object.Attributes()); inner != "" {
				return name + "." + inner
			}
		}
	}
	return ""
}

// A placeReader reads the arguments of a place.
type placeReader struct {
	root   path.Path
	getenv func(string) string
	diags  *diag.Diagnostics
}

// as reads the object itself.
func (r placeReader) as(ctx context.Context, object types.Object, model any) {
	r.diags.Append(object.As(ctx, model, basetypes.ObjectAsOptions{})...)
}

// text is the value of an argument or, where it is not written, of the first variable that is set.
func (r placeReader) text(value types.String, variables ...string) string {
	if !value.IsNull() {
		return value.ValueString()
	}
	for _, variable := range variables {
		if text := r.getenv(variable); text != "" {
			return text
		}
	}
	return ""
}

// secret is text for a secret.
func (r placeReader) secret(value types.String, variables ...string) secret.String {
	return secret.New(r.text(value, variables...))
}

// required is text for what must be there.
func (r placeReader) required(value types.String, name, variable string) string {
	return required(value, r.root.AtName(name), variable, r.getenv, r.diags)
}

// file is the content of a file that an argument or a variable names; nil: none does.
func (r placeReader) file(value types.String, name, variable string) []byte {
	file := r.text(value, variable)
	if file == "" {
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		r.diags.AddAttributeError(r.root.AtName(name), "Unreadable File", sentence(err.Error()))
	}
	return b
}

func secretOf(text string) secret.String { return secret.New(text) }

// missing says that a place has no credentials.
func (r placeReader) missing(name, todo string) {
	r.diags.AddAttributeError(r.root.AtName(name), "Missing Provider Argument", fmt.Sprintf("%s has no credentials. %s", r.root, todo))
}

// atMostOneRepository refuses a provider block with a repository in two places.
type atMostOneRepository struct{}

var _ provider.ConfigValidator = atMostOneRepository{}

func (atMostOneRepository) Description(context.Context) string {
	return "at most one place for the repository: " + strings.Join(placeNames, ", ")
}

func (v atMostOneRepository) MarkdownDescription(ctx context.Context) string {
	return v.Description(ctx)
}

func (atMostOneRepository) ValidateProvider(
	ctx context.Context, req provider.ValidateConfigRequest, resp *provider.ValidateConfigResponse,
) {
	at := make([]path.Path, len(placeNames))
	for i, name := range placeNames {
		at[i] = path.Root("repository").AtName(name)
	}
	if second, all := severalWritten(ctx, req, resp, at); all != "" {
		resp.Diagnostics.AddAttributeError(second, "Several Repositories Configured",
			fmt.Sprintf("One provider block is for one repository, but this one has %s. Write one provider block "+
				"for each, with an alias.", all))
	}
}
