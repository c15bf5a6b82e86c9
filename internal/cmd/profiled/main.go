// Command profiled is the provider with a profiler, which the benchmarks start instead of the one that is
// released.
package main

import (
	"context"
	"log"

	"github.com/terraform-vm/terraform-provider-vm/internal/profile"
	"github.com/terraform-vm/terraform-provider-vm/internal/provider"
)

func main() {
	if err := profile.Run(func() error { return provider.Serve(context.Background(), "profiled", false) }); err != nil {
		log.Fatal(err)
	}
}
