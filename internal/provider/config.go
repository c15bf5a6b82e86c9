package provider

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/boolvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
	"github.com/terraform-vm/terraform-provider-vm/internal/vsphere"
)

// Environment variables that stand in for arguments which are not written. Those of vSphere are the
// ones that other tools for vSphere read too.
const (
	envServer             = "VSPHERE_SERVER"
	envUser               = "VSPHERE_USER"
	envPassword           = "VSPHERE_PASSWORD" //nolint:gosec // the name of a variable, not a password
	envAllowUnverifiedSSL = "VSPHERE_ALLOW_UNVERIFIED_SSL"
)

// hypervisorNames are the arguments of the provider of which at most one may be written.
var hypervisorNames = []string{"vsphere"}

type providerModel struct {
	VSphere    types.Object `tfsdk:"vsphere"`
	Repository types.Object `tfsdk:"repository"`
}

type vsphereModel struct {
	Server             types.String `tfsdk:"server"`
	User               types.String `tfsdk:"user"`
	Password           types.String `tfsdk:"password"`
	CAFile             types.String `tfsdk:"ca_file"`
	Thumbprint         types.String `tfsdk:"thumbprint"`
	AllowUnverifiedSSL types.Bool   `tfsdk:"allow_unverified_ssl"`
	Transports         types.List   `tfsdk:"transports"`
	MaxTransfers       types.Object `tfsdk:"max_transfers"`
}

type transfersModel struct {
	PerDisk   types.Int64 `tfsdk:"per_disk"`
	PerVM     types.Int64 `tfsdk:"per_vm"`
	PerHost   types.Int64 `tfsdk:"per_host"`
	PerServer types.Int64 `tfsdk:"per_server"`
}

// settings is the provider's configuration with the environment taken into account.
type settings struct {
	vsphere    *vsphereSettings
	repository *repositorySettings

	// unknown names an argument of the block that is not known yet; empty: all are known.
	hypervisorUnknown string
	repositoryUnknown string
}

type vsphereSettings struct {
	server, user       string
	password           secret.String
	caFile, thumbprint string
	allowUnverifiedSSL bool
	transports         []string // empty: the default
	perDisk            int      // requests at a time; zero: the default
	perVM              int      // transfers at a time; zero: the default
	perHost, perServer int
}

func providerSchema() schema.Schema {
	return schema.Schema{
		MarkdownDescription: "Takes snapshots and backups of virtual machines, and restores them.",
		Attributes: map[string]schema.Attribute{
			"vsphere": schema.SingleNestedAttribute{
				MarkdownDescription: "A vCenter server, or a single ESXi host. The connection is made when " +
					"something needs it. Without this argument, vSphere is used if `" + envServer + "` is set.",
				Optional:   true,
				Attributes: vsphereAttributes(),
			},
			"repository": repositoryAttribute(),
		},
	}
}

func vsphereAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"server": schema.StringAttribute{
			MarkdownDescription: "`host` or `host:port` of the server. Or `" + envServer + "`.",
			Optional:            true,
			Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"user": schema.StringAttribute{
			MarkdownDescription: "The user to log in as. Or `" + envUser + "`.",
			Optional:            true,
			Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"password": schema.StringAttribute{
			MarkdownDescription: "The user's password. Or `" + envPassword + "`.",
			Optional:            true,
			Sensitive:           true,
		},
		"ca_file": schema.StringAttribute{
			MarkdownDescription: "A PEM file with the certificates to trust, instead of the system's.",
			Optional:            true,
			Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"thumbprint": schema.StringAttribute{
			MarkdownDescription: "The thumbprint (SHA-256, or SHA-1) of the server's certificate in hexadecimal, with " +
				"or without colons: trust this certificate, whoever signed it, and no other.",
			Optional:   true,
			Validators: []validator.String{thumbprintValidator{}},
		},
		"allow_unverified_ssl": schema.BoolAttribute{
			MarkdownDescription: "Trust any certificate. Whoever can answer in the server's place gets the password " +
				"then; prefer `thumbprint` or `ca_file`. Or `" + envAllowUnverifiedSSL + "`. Default: `false`.",
			Optional: true,
			Validators: []validator.Bool{boolvalidator.ConflictsWith(
				path.MatchRelative().AtParent().AtName("ca_file"),
				path.MatchRelative().AtParent().AtName("thumbprint"),
			)},
		},
		"transports": schema.ListAttribute{
			MarkdownDescription: "The ways in which backups may read disks, the preferred one first. `datastore` reads " +
				"parts of a disk's file from its datastore: only what is allocated, or what changed since the backup before. " +
				"It needs the privileges `Datastore.Browse` and `Datastore.FileManagement`, a VMFS or NFS datastore, and a VM without snapshots; where " +
				"nothing tells which areas of a thin disk are allocated, it reads the zeros as well. `export` reads every disk " +
				"as one stream without zeros, as an export of the VM does; it is always possible. For each disk, the first one " +
				"that is possible is used, but `export`, if it is allowed, where `datastore` would read many zeros. Default: `[\"datastore\", \"export\"]`.",
			ElementType: types.StringType,
			Optional:    true,
			Validators: []validator.List{
				listvalidator.SizeAtLeast(1), listvalidator.UniqueValues(),
				listvalidator.ValueStringsAre(stringvalidator.OneOf(vsphere.TransportDatastore, vsphere.TransportExport)),
			},
		},
		"max_transfers": schema.SingleNestedAttribute{
			MarkdownDescription: "How many disks may be read or written at the same time.",
			Optional:            true,
			Attributes: map[string]schema.Attribute{
				"per_disk": schema.Int64Attribute{
					MarkdownDescription: "Parts of one disk that the transport `datastore` reads at the same time, each on a " +
						"connection of its own. Default: `4`.",
					Optional:   true,
					Validators: []validator.Int64{int64validator.Between(1, 32)},
				},
				"per_vm":     transfersAttribute("one virtual machine", 2),
				"per_host":   transfersAttribute("one ESXi host", 4),
				"per_server": transfersAttribute("the server, over everything in this run", 8),
			},
		},
	}
}

func transfersAttribute(of string, standard int) schema.Int64Attribute {
	return schema.Int64Attribute{
		MarkdownDescription: fmt.Sprintf("Disks of %s. Default: `%d`.", of, standard),
		Optional:            true,
		Validators:          []validator.Int64{int64validator.Between(1, 256)},
	}
}

// settings takes the environment into account and reports every value that is missing at once. An
// unknown value is no error: it is one only when something needs it.
func (m providerModel) settings(ctx context.Context, getenv func(string) string) (settings, diag.Diagnostics) {
	var (
		s     settings
		diags diag.Diagnostics
	)
	switch {
	case m.VSphere.IsUnknown():
		s.hypervisorUnknown = "vsphere"
	case m.VSphere.IsNull() && getenv(envServer) == "":
	default:
		var v vsphereModel
		if !m.VSphere.IsNull() {
			diags.Append(m.VSphere.As(ctx, &v, basetypes.ObjectAsOptions{})...)
		}
		s.vsphere, s.hypervisorUnknown = v.settings(ctx, getenv, &diags)
	}
	switch {
	case m.Repository.IsUnknown():
		s.repositoryUnknown = "repository"
	case m.Repository.IsNull() && getenv(envRepositoryPath) == "":
	default:
		var r repositoryModel
		if !m.Repository.IsNull() {
			diags.Append(m.Repository.As(ctx, &r, basetypes.ObjectAsOptions{})...)
		}
		s.repository, s.repositoryUnknown = r.settings(ctx, getenv, &diags)
	}
	return s, diags
}

func (m vsphereModel) settings(
	ctx context.Context, getenv func(string) string, diags *diag.Diagnostics,
) (*vsphereSettings, string) {
	var transfers transfersModel
	if !m.MaxTransfers.IsNull() && !m.MaxTransfers.IsUnknown() {
		diags.Append(m.MaxTransfers.As(ctx, &transfers, basetypes.ObjectAsOptions{})...)
	}
	for name, value := range map[string]attr.Value{
		"server": m.Server, "user": m.User, "password": m.Password, "ca_file": m.CAFile,
		"thumbprint": m.Thumbprint, "allow_unverified_ssl": m.AllowUnverifiedSSL, "max_transfers": m.MaxTransfers,
		"transports": m.Transports, "max_transfers.per_disk": transfers.PerDisk, "max_transfers.per_vm": transfers.PerVM, "max_transfers.per_host": transfers.PerHost,
		"max_transfers.per_server": transfers.PerServer,
	} {
		if value.IsUnknown() {
			return nil, "vsphere." + name
		}
	}
	root := path.Root("vsphere")
	v := &vsphereSettings{
		server:             required(m.Server, root.AtName("server"), envServer, getenv, diags),
		user:               required(m.User, root.AtName("user"), envUser, getenv, diags),
		password:           secret.New(required(m.Password, root.AtName("password"), envPassword, getenv, diags)),
		caFile:             m.CAFile.ValueString(),
		thumbprint:         m.Thumbprint.ValueString(),
		allowUnverifiedSSL: m.AllowUnverifiedSSL.ValueBool(),
		perDisk:            int(transfers.PerDisk.ValueInt64()),
		perVM:              int(transfers.PerVM.ValueInt64()),
		perHost:            int(transfers.PerHost.ValueInt64()),
		perServer:          int(transfers.PerServer.ValueInt64()),
	}
	for _, transport := range m.Transports.Elements() {
		if transport.IsUnknown() {
			return nil, "vsphere.transports"
		}
	}
	if !m.Transports.IsNull() {
		diags.Append(m.Transports.ElementsAs(ctx, &v.transports, false)...)
	}
	// A certificate that is pinned, or a CA that is named, is a decision of its own: the variable
	// doesn't take it back.
	text := getenv(envAllowUnverifiedSSL)
	if m.AllowUnverifiedSSL.IsNull() && v.caFile == "" && v.thumbprint == "" && text != "" {
		allow, err := strconv.ParseBool(text)
		if err != nil {
			diags.AddAttributeError(root.AtName("allow_unverified_ssl"), "Invalid Environment Variable",
				fmt.Sprintf("%s must be true or false, not %q.", envAllowUnverifiedSSL, text))
		}
		v.allowUnverifiedSSL = allow
	}
	return v, ""
}

// required is the value of an argument or, where it is not written, of a variable. Neither is an error.
func required(
	value types.String, at path.Path, variable string, getenv func(string) string, diags *diag.Diagnostics,
) string {
	if !value.IsNull() {
		return value.ValueString()
	}
	text := getenv(variable)
	if text == "" {
		diags.AddAttributeError(at, "Missing Provider Argument",
			fmt.Sprintf("Set %s in the provider block, or the environment variable %s.", at, variable))
	}
	return text
}

// atMostOneHypervisor refuses a provider block with two hypervisors. None at all is an error only
// when something needs one: backups can be listed and removed without.
type atMostOneHypervisor struct{ names []string }

var _ provider.ConfigValidator = atMostOneHypervisor{}

func (v atMostOneHypervisor) Description(context.Context) string {
	return "at most one hypervisor: " + strings.Join(v.names, ", ")
}

func (v atMostOneHypervisor) MarkdownDescription(ctx context.Context) string {
	return v.Description(ctx)
}

func (v atMostOneHypervisor) ValidateProvider(
	ctx context.Context, req provider.ValidateConfigRequest, resp *provider.ValidateConfigResponse,
) {
	at := make([]path.Path, len(v.names))
	for i, name := range v.names {
		at[i] = path.Root(name)
	}
	if second, all := severalWritten(ctx, req, resp, at); all != "" {
		resp.Diagnostics.AddAttributeError(second, "Several Hypervisors Configured",
			fmt.Sprintf("One provider block is for one hypervisor, but this one has %s. Write one provider block "+
				"for each, with an alias.", all))
	}
}

// severalWritten looks for those of some arguments that are written: the second, and all in words. There are none
// unless there are two.
func severalWritten(
	ctx context.Context, req provider.ValidateConfigRequest, resp *provider.ValidateConfigResponse, at []path.Path,
) (second path.Path, all string) {
	var written []string
	for _, p := range at {
		var value attr.Value
		resp.Diagnostics.Append(req.Config.GetAttribute(ctx, p, &value)...)
		if value == nil || value.IsNull() || value.IsUnknown() {
			continue
		}
		if written = append(written, p.String()); len(written) == 2 {
			second = p
		}
	}
	if len(written) < 2 {
		return second, ""
	}
	return second, strings.Join(written, " and ")
}
