package main

import "sync"

// buffers are what answers are copied with. Each stream has one for as long as it is open, which with the
// ReverseProxy's own 32 KiB would be most of the memory.
var buffers = &bufferPool{sync.Pool{New: func() any { return new([2 << 10]byte) }}}

// A bufferPool is an [httputil.BufferPool].
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte { return p.pool.Get().(*[2 << 10]byte)[:] }

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[2 << 10]byte)(b)) }
