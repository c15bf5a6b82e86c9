// Command terraform-provider-vm is the Terraform provider. Terraform starts it; there is nothing to
// run by hand.
package main

import (
	"context"
	"flag"
	"log"

	"github.com/terraform-vm/terraform-provider-vm/internal/provider"
)

// version is set by the release build.
var version = "dev"

func main() {
	debug := flag.Bool("debug", false, "run with support for debuggers such as delve")
	flag.Parse()
	if err := provider.Serve(context.Background(), version, *debug); err != nil {
		log.Fatal(err)
	}
}
