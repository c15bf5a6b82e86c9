package provider

import (
	"context"
	"log/slog"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/vsphere"
)

// backends make connections. Tests of plans and of state give their own.
type backends struct {
	hypervisor func(ctx context.Context, s settings, log *slog.Logger) (hypervisor.Hypervisor, error)
	repository func(ctx context.Context, s repositorySettings, create bool) (*repository.Repository, error)
}

// realBackends is where implementations are wired in.
var realBackends = backends{
	hypervisor: func(ctx context.Context, s settings, log *slog.Logger) (hypervisor.Hypervisor, error) {
		c, err := vsphere.Connect(ctx, vsphere.Config{
			Server:                s.vsphere.server,
			User:                  s.vsphere.user,
			Password:              s.vsphere.password,
			CAFile:                s.vsphere.caFile,
			Thumbprint:            s.vsphere.thumbprint,
			AllowUnverifiedSSL:    s.vsphere.allowUnverifiedSSL,
			Transports:            s.vsphere.transports,
			MaxRangesPerDisk:      s.vsphere.perDisk,
			MaxTransfersPerVM:     s.vsphere.perVM,
			MaxTransfersPerHost:   s.vsphere.perHost,
			MaxTransfersPerServer: s.vsphere.perServer,
		}, log)
		if err != nil {
			return nil, err // not c, which would be an interface that holds a nil pointer
		}
		return c, nil
	},
	repository: func(ctx context.Context, s repositorySettings, create bool) (*repository.Repository, error) {
		return repository.Open(ctx, repository.Config{
			Path: s.path, Place: s.place, Password: s.password, Create: create, Compression: repository.Compression(s.compression),
			Encryption: repository.Encryption(s.encryption), Limits: s.limits, Cache: s.cache,
			MaxOutage: s.maxOutage, Log: slog.New(logHandler{}),
		})
	},
}
