package run

import (
	"os"
	"sync"
)

type identity struct {
	host  string
	space Space
	pid   int
	ticks uint32
}

// self is this process. It does not change, so it is found out once.
var self = sync.OnceValue(func() identity {
	me := identity{pid: os.Getpid()}
	if host, err := os.Hostname(); err == nil {
		me.host = host
	}
	me.space = space()
	me.ticks, _ = process(me.pid)
	return me
})
