package provider

import (
	"context"
	"os"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
)

// Address is where the provider is in the registry.
const Address = "registry.terraform.io/terraform-vm/vm"

// closeTimeout is short of the two seconds after which Terraform kills a provider that it has told
// to end.
const closeTimeout = 1500 * time.Millisecond

// Serve serves the provider to the Terraform that started the process, until Terraform ends it.
func Serve(ctx context.Context, version string, debug bool) error {
	if err := muteLibraries(os.LookupEnv, os.Setenv); err != nil {
		return err
	}
	defer collectLate(os.LookupEnv, setGCPercent)()
	p := New(version)
	var options []tf6server.ServeOpt
	if debug {
		options = append(options, tf6server.WithManagedDebug())
	}
	err := tf6server.Serve(Address, p.server, options...)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	p.Close(closing)
	return err
}
