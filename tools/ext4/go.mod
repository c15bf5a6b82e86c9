// The tool that makes the demonstration's file system where mke2fs is not installed.
module github.com/terraform-vm/terraform-provider-vm/tools/ext4

go 1.26

tool github.com/Microsoft/hcsshim/cmd/tar2ext4

require (
	github.com/Microsoft/hcsshim v0.9.12 // indirect
	github.com/pkg/errors v0.9.1 // indirect
)
