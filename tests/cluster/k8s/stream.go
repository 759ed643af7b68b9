package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

func init() { programs["cri-streaming"] = runStreaming }

// runStreaming serves exec, attach and port-forward streams for the container runtime, which is not written in Go:
// the kubelet speaks SPDY here, and Kubernetes' own library is the one complete server of it. The runtime says over a
// Unix socket, one JSON line per connection, what a stream is to be connected with, and gets the stream's URL.
func runStreaming() int {
	flags := flag.NewFlagSet("cri-streaming", flag.ExitOnError)
	control := flags.String("control", "", "Unix socket to take the runtime's requests on")
	listen := flags.String("listen", "127.0.0.1:0", "address to serve streams on")
	_ = flags.Parse(os.Args[1:])
	if err := serveStreams(*control, *listen); err != nil {
		fmt.Fprintln(os.Stderr, "cri-streaming:", err)
		return 1
	}
	return 0
}

func serveStreams(control, listen string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	config := streaming.DefaultConfig
	config.Addr = listener.Addr().String()
	config.BaseURL = &url.URL{Scheme: "http", Host: config.Addr, Path: "/"}
	server, err := streaming.NewServer(config, processes{})
	if err != nil {
		return err
	}
	requests, err := net.Listen("unix", control)
	if err != nil {
		return err
	}
	go answerRequests(requests, server)
	return http.Serve(listener, server)
}

// request is what the runtime asks for. Exec: argv is a command on this machine that enters the container itself, ptmx
// the container's /dev/ptmx as this machine sees it, so that a terminal has a name inside.
type request struct {
	Kind   string   `json:"kind"`
	Argv   []string `json:"argv"`
	PTMX   string   `json:"ptmx"`
	Socket string   `json:"socket"`
	NetNS  string   `json:"netns"`
	Ports  []int32  `json:"ports"`
	TTY    bool     `json:"tty"`
	Stdin  bool     `json:"stdin"`
	Stdout bool     `json:"stdout"`
	Stderr bool     `json:"stderr"`
}

func answerRequests(requests net.Listener, server streaming.Server) {
	for {
		connection, err := requests.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			var wanted request
			answer := map[string]string{}
			if err := json.NewDecoder(bufio.NewReader(connection)).Decode(&wanted); err != nil {
				answer["error"] = err.Error()
			} else if address, err := streamURL(server, wanted); err != nil {
				answer["error"] = err.Error()
			} else {
				answer["url"] = address
			}
			_ = json.NewEncoder(connection).Encode(answer)
		}()
	}
}

// streamURL registers a stream. The library's requests carry ids of containers and pods; ours carry in their place
// what processes needs to reach them: the container's terminal device for exec, a socket for attach, a network namespace
// for port-forward.
func streamURL(server streaming.Server, wanted request) (string, error) {
	switch wanted.Kind {
	case "exec":
		answer, err := server.GetExec(&runtimeapi.ExecRequest{ContainerId: wanted.PTMX, Cmd: wanted.Argv,
			Tty: wanted.TTY, Stdin: wanted.Stdin, Stdout: wanted.Stdout, Stderr: wanted.Stderr})
		return answer.GetUrl(), err
	case "attach":
		answer, err := server.GetAttach(&runtimeapi.AttachRequest{ContainerId: wanted.Socket,
			Tty: wanted.TTY, Stdin: wanted.Stdin, Stdout: wanted.Stdout, Stderr: wanted.Stderr})
		return answer.GetUrl(), err
	case "portforward":
		answer, err := server.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: wanted.NetNS, Port: wanted.Ports})
		return answer.GetUrl(), err
	}
	return "", fmt.Errorf("kind %q: must be exec, attach or portforward", wanted.Kind)
}

// processes connects streams with local processes, sockets and network namespaces.
type processes struct{}

func (processes) Exec(ctx context.Context, ptmx string, argv []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	if tty {
		return exitError(runOnTerminal(command, ptmx, in, out, resize))
	}
	command.Stdout, command.Stderr = writerOrNil(out), writerOrNil(errOut)
	if in != nil {
		// Not command.Stdin: Wait would then wait for a client that never ends its input.
		stdin, err := command.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			defer stdin.Close()
			_, _ = io.Copy(stdin, in)
		}()
	}
	command.WaitDelay = time.Second // for what a left-behind grandchild keeps open
	err := command.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return exitError(err)
}

// writerOrNil keeps a nil stream from becoming a non-nil io.Writer.
func writerOrNil(stream io.WriteCloser) io.Writer {
	if stream == nil {
		return nil
	}
	return stream
}

// exitError makes the status of an ended command known to the library, 128+n for a death by signal n.
func exitError(err error) error {
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return err
	}
	code := ended.ExitCode()
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return utilexec.CodeExitError{Err: fmt.Errorf("exit status %d", code), Code: code}
}

// openTerminal makes a terminal: the end to keep, and the end for the command.
func openTerminal(ptmx string) (*os.File, *os.File, error) {
	terminal, err := os.OpenFile(ptmx, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	descriptor := int(terminal.Fd())
	if err := unix.IoctlSetPointerInt(descriptor, unix.TIOCSPTLCK, 0); err != nil {
		terminal.Close()
		return nil, nil, err
	}
	peer, _, failed := syscall.Syscall(syscall.SYS_IOCTL, uintptr(descriptor), unix.TIOCGPTPEER, syscall.O_RDWR|syscall.O_NOCTTY)
	if failed != 0 {
		terminal.Close()
		return nil, nil, failed
	}
	return terminal, os.NewFile(peer, "terminal"), nil
}

func runOnTerminal(command *exec.Cmd, ptmx string, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	terminal, peer, err := openTerminal(ptmx)
	if err != nil {
		return fmt.Errorf("making a terminal: %w", err)
	}
	defer terminal.Close()
	// The command makes the terminal its own once it is inside the container: a session led from outside would leave the
	// shell there with a process group that it cannot see.
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Stdin, command.Stdout, command.Stderr = peer, peer, peer
	err = command.Start()
	peer.Close()
	if err != nil {
		return err
	}
	go func() {
		for size := range resize {
			_ = pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width})
		}
	}()
	if in != nil {
		go func() { _, _ = io.Copy(terminal, in) }()
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		if out != nil {
			_, _ = io.Copy(out, terminal) // ends with EIO when the last process has left the terminal
		}
	}()
	err = command.Wait()
	select {
	case <-copied:
	case <-time.After(time.Second):
	}
	return err
}

// Frames of an attach socket: stream number, length, bytes. To the runtime: stdin (length 0 is its end) and the
// terminal's size (rows, columns as two big-endian uint16). From it: stdout and stderr.
const (
	frameStdin byte = iota
	frameStdout
	frameStderr
	frameResize
)

func (processes) Attach(ctx context.Context, socket string, in io.Reader, out, errOut io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer connection.Close()
	stop := context.AfterFunc(ctx, func() { connection.Close() })
	defer stop()
	var lock sync.Mutex
	send := func(kind byte, data []byte) error {
		lock.Lock()
		defer lock.Unlock()
		frame := append([]byte{kind}, binary.BigEndian.AppendUint32(nil, uint32(len(data)))...)
		_, err := connection.Write(append(frame, data...))
		return err
	}
	go func() {
		for size := range resize {
			data := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, size.Height), size.Width)
			_ = send(frameResize, data)
		}
	}()
	if in != nil {
		go sendInput(in, send)
	}
	return receiveOutput(bufio.NewReader(connection), writerOrNil(out), writerOrNil(errOut))
}

func sendInput(in io.Reader, send func(byte, []byte) error) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := in.Read(buffer)
		if n > 0 && send(frameStdin, buffer[:n]) != nil {
			return
		}
		if err != nil {
			_ = send(frameStdin, nil)
			return
		}
	}
}

func receiveOutput(frames io.Reader, out, errOut io.Writer) error {
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(frames, head); err != nil {
			return nil // the container has ended
		}
		target := out
		if head[0] == frameStderr {
			target = errOut
		}
		if target == nil {
			target = io.Discard
		}
		if _, err := io.CopyN(target, frames, int64(binary.BigEndian.Uint32(head[1:]))); err != nil {
			return err
		}
	}
}

func (processes) PortForward(ctx context.Context, namespace string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	connection, err := dialIn(ctx, namespace, fmt.Sprintf("localhost:%d", port))
	if err != nil {
		return fmt.Errorf("port %d of the pod: %w", port, err)
	}
	defer connection.Close()
	stop := context.AfterFunc(ctx, func() { connection.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(connection, stream)
		if half, ok := connection.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
	}()
	_, err = io.Copy(stream, connection)
	return err
}

// dialIn connects from inside a network namespace, on a thread that enters it and is thrown away afterwards.
func dialIn(ctx context.Context, namespace, address string) (net.Conn, error) {
	type result struct {
		connection net.Conn
		err        error
	}
	results := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		file, err := os.Open(namespace)
		if err != nil {
			results <- result{nil, err}
			return
		}
		defer file.Close()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			results <- result{nil, fmt.Errorf("entering its network: %w", err)}
			return
		}
		connection, err := dialLoopback(ctx, address)
		results <- result{connection, err}
	}()
	found := <-results
	return found.connection, found.err
}

// dialLoopback tries IPv4, then IPv6, without a Dialer's own goroutines: their threads are in another namespace.
func dialLoopback(ctx context.Context, address string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	connection, err := dialer.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if other, otherErr := dialer.DialContext(ctx, "tcp6", net.JoinHostPort("::1", port)); otherErr == nil {
			return other, nil
		}
	}
	return connection, err
}
