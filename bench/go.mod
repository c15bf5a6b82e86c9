// The benchmarks have a module of their own, so that what they compare with is no dependency of the provider.
module github.com/terraform-vm/terraform-provider-vm/bench

go 1.26

require (
	github.com/terraform-vm/terraform-provider-vm v0.0.0
	github.com/vmware/govmomi v0.56.0
)

require (
	github.com/dougm/pretty v0.0.0-20160325215624-add1dbc86daf // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/klauspost/compress v1.18.6 // indirect
	github.com/klauspost/cpuid/v2 v2.3.0 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/rogpeppe/go-internal v1.16.0 // indirect
	github.com/zeebo/blake3 v0.2.4 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.41.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)

replace github.com/terraform-vm/terraform-provider-vm => ../
