/*
 * Preloaded into the user-mode kernel on processors whose register state is larger than that kernel
 * knows (AMX: some 11 kB, against its 2.7 kB). It hands the host kernel its own short buffer to set a
 * process's extended registers, which the host refuses with EFAULT: it takes the whole state or nothing.
 * Here the rest is added, as "not in use": a user-mode kernel never grants AMX to its processes.
 *
 * No headers and no libc to link with, so that a bare compiler will do.
 */
typedef unsigned long size;

struct iovec { void *base; size len; };

enum { SETREGSET = 0x4205, GETREGSET = 0x4204, NT_X86_XSTATE = 0x202, ROOM = 65536, HEADER = 512 };

/* the components up to the protection keys, which all fit into the short buffer */
static const size known = 0x3ff;

extern void *dlsym(void *handle, const char *name);
extern void *memcpy(void *to, const void *from, size n);

typedef long ptrace_function(long request, long pid, void *addr, void *data);

static char state[ROOM] __attribute__((aligned(64)));
static size whole; /* the length that the host wants */

long ptrace(long request, long pid, void *addr, void *data)
{
	static ptrace_function *next;
	if (!next)
		next = (ptrace_function *)dlsym((void *)-1L /* RTLD_NEXT */, "ptrace");
	if (request != SETREGSET || (long)addr != NT_X86_XSTATE)
		return next(request, pid, addr, data);

	struct iovec *short_state = data;
	if (!whole) {
		struct iovec probe = { state, ROOM };
		long failed = next(GETREGSET, pid, addr, &probe);
		if (failed)
			return failed;
		whole = probe.len;
	}
	if (short_state->len >= whole)
		return next(request, pid, addr, data);
	memcpy(state, short_state->base, short_state->len);
	*(size *)(state + HEADER) &= known;
	struct iovec full = { state, whole };
	return next(request, pid, addr, &full);
}
