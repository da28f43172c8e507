package main

import "sync"

// buffers are small, because each open stream holds one: buffers of ReverseProxy's 32 KiB would take most of the
// memory.
var buffers = &bufferPool{sync.Pool{New: func() any { return new([2 << 10]byte) }}}

// A bufferPool is an [httputil.BufferPool].
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte { return p.pool.Get().(*[2 << 10]byte)[:] }

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[2 << 10]byte)(b)) }
