qemu-img convert -f raw -O vmdk -o subformat=streamOptimized,adapter_type=lsilogic web01-system.raw web01-system.vmdk
