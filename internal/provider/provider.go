// Package provider is what Terraform sees: schemas, plans, state and diagnostics. It is the only
// package that knows Terraform's types, and the one place that wires a hypervisor and a repository to
// the packages that take snapshots, backups and restores.
package provider

import (
	"context"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/list"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/resource"
)

var (
	_ provider.ProviderWithConfigValidators = (*Provider)(nil)
	_ provider.ProviderWithListResources    = (*Provider)(nil)
	_ provider.ProviderWithActions          = (*Provider)(nil)
)

// A Provider serves the resources, data sources, lists and actions. Connections are made when something needs them
// and kept until Close.
type Provider struct {
	version  string
	backends backends
	getenv   func(string) string
	sessions sessions
}

// New makes a provider of the given version. Close it when it is no longer served.
func New(version string) *Provider {
	return &Provider{version: version, backends: realBackends, getenv: os.Getenv}
}

// Close logs out and closes repositories. Errors are not reported: at the end of a process there is
// nobody left to tell, and a server ends idle sessions by itself.
func (p *Provider) Close(ctx context.Context) { p.sessions.end(ctx) }

// Metadata implements provider.Provider.
func (p *Provider) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName = "vm"
	resp.Version = p.version
}

// Schema implements provider.Provider.
func (p *Provider) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	resp.Schema = providerSchema()
}

// ConfigValidators implements provider.ProviderWithConfigValidators.
func (p *Provider) ConfigValidators(context.Context) []provider.ConfigValidator {
	return []provider.ConfigValidator{atMostOneHypervisor{names: hypervisorNames}, atMostOneRepository{}}
}

// Configure implements provider.Provider. It connects to nothing.
func (p *Provider) Configure(ctx context.Context, req provider.ConfigureRequest, resp *provider.ConfigureResponse) {
	var model providerModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	settings, diags := model.settings(ctx, p.getenv)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	s := newSession(settings, p.backends, p.version)
	p.sessions.add(s)
	resp.ResourceData = s
	resp.DataSourceData = s
	resp.ListResourceData = s
	resp.ActionData = s
}

// Resources implements provider.Provider.
func (p *Provider) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{
		func() resource.Resource { return &snapshotResource{} },
		func() resource.Resource { return &snapshotSetResource{} },
		func() resource.Resource { return &backupResource{} },
		func() resource.Resource { return &restoreResource{} },
	}
}

// DataSources implements provider.Provider.
func (p *Provider) DataSources(context.Context) []func() datasource.DataSource {
	return []func() datasource.DataSource{
		func() datasource.DataSource { return &machineDataSource{} },
		func() datasource.DataSource { return &snapshotDataSource{} },
		func() datasource.DataSource { return &snapshotsDataSource{} },
		func() datasource.DataSource { return &backupDataSource{} },
		func() datasource.DataSource { return &backupsDataSource{} },
		func() datasource.DataSource { return &backupRetentionDataSource{} },
		func() datasource.DataSource { return &backupHealthDataSource{} },
	}
}

// ListResources implements provider.ProviderWithListResources.
func (p *Provider) ListResources(context.Context) []func() list.ListResource {
	return []func() list.ListResource{
		func() list.ListResource { return &snapshotList{} },
		func() list.ListResource { return &backupList{} },
	}
}

// Actions implements provider.ProviderWithActions.
func (p *Provider) Actions(context.Context) []func() action.Action { return allActions() }
