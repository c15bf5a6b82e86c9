// Command terraform-provider-vm is the Terraform provider. Terraform starts it; there is nothing to
// run by hand.
package main

import (
	"context"
	"flag"
	"log"
	"time"

	fwprovider "github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"

	"github.com/terraform-vm/terraform-provider-vm/internal/provider"
)

// version is set by the release build.
var version = "dev"

// logoutTimeout is short of the two seconds after which Terraform kills a provider that it has told
// to end.
const logoutTimeout = 1500 * time.Millisecond

func main() {
	debug := flag.Bool("debug", false, "run with support for debuggers such as delve")
	flag.Parse()
	ctx := context.Background()
	p := provider.New(version)
	err := providerserver.Serve(ctx, func() fwprovider.Provider { return p }, providerserver.ServeOpts{
		Address: "registry.terraform.io/terraform-vm/vm",
		Debug:   *debug,
	})
	closing, cancel := context.WithTimeout(ctx, logoutTimeout)
	p.Close(closing)
	cancel()
	if err != nil {
		log.Fatal(err)
	}
}
