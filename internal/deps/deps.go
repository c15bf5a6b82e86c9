// Package deps pins modules until the packages that need them exist.
package deps

import (
	_ "github.com/google/uuid"
	_ "github.com/hashicorp/hc-install"
	_ "github.com/hashicorp/terraform-plugin-framework-timeouts/datasource/timeouts"
	_ "github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	_ "github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	_ "github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	_ "github.com/hashicorp/terraform-plugin-framework/providerserver"
	_ "github.com/hashicorp/terraform-plugin-go/tfprotov6"
	_ "github.com/hashicorp/terraform-plugin-log/tflog"
	_ "github.com/hashicorp/terraform-plugin-testing/helper/resource"
	_ "github.com/klauspost/compress/zlib"
	_ "github.com/kopia/kopia/cli"
	_ "github.com/kopia/kopia/repo"
	_ "github.com/kopia/kopia/repo/blob/filesystem"
	_ "github.com/kopia/kopia/snapshot/snapshotfs"
	_ "github.com/kopia/kopia/snapshot/snapshotmaintenance"
	_ "github.com/spf13/cobra"
	_ "github.com/vmware/govmomi/cli"
	_ "github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator"
	_ "github.com/vmware/govmomi/vapi/tags"
	_ "github.com/zeebo/blake3"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
)
