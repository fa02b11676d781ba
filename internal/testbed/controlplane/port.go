package controlplane

import (
	"fmt"
	"syscall"
)

// port is a TCP port on the loopback that nobody else is given until it is closed.
type port struct {
	number, fd int
}

// reservePort takes a free port. It stays bound, but does not listen: a program that sets SO_REUSEADDR, as
// Go's do, can listen there, and the kernel gives it to nobody who asks for any free port.
func reservePort() (*port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	p := &port{fd: fd}
	if p.number, err = p.bind(); err != nil {
		p.close()
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return p, nil
}

func (p *port) bind() (int, error) {
	if err := syscall.SetsockoptInt(p.fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(p.fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	address, err := syscall.Getsockname(p.fd)
	if err != nil {
		return 0, err
	}
	inet, ok := address.(*syscall.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("bound to %v", address)
	}
	return inet.Port, nil
}

func (p *port) address() string { return fmt.Sprintf("127.0.0.1:%d", p.number) }

func (p *port) close() { _ = syscall.Close(p.fd) }
