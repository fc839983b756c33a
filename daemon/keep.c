/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's side of the keeper.
 *
 * COMMIT: a sent message is the commit point of what a session has.
 *   crash before: the client has no reply, so no thread of it uses what was not sent.
 *   crash after:  the next daemon takes it from the keeper, which reads its socket to the end.
 *   durable:      as long as the keeper lives; the session's file says that there is something.
 *
 * The keeper dies, the daemon lives: the connection ends, another keeper is started, and all
 * sessions are sent again from the daemon's own descriptors. Both die: a session whose file says
 * that it has slots, and of which no keeper knows, counts as being in every epoch until it ends.
 *
 * Nothing here waits for the keeper, except at the start. A socket that is full, or too many
 * descriptors on their way, leave sessions in `behind`, and requests in `waiting`. A keeper that
 * ends at once is started again once a second.
 */
#include "daemon/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/keeper.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"

#define TAKE_SECONDS 10  /* that a daemon waits for a keeper as it starts */
#define RESTART_MS 1000u /* between starts of keepers */
#define REFS_MS 20u      /* between tries, while too many descriptors are on their way */
#define DROPS_MAX 65536u /* noted; others it drops when their processes end */

const char *keeper_program;

/* A connection: freed when libuv has closed its handle. */
struct keep_link {
	struct nvmmd *nvmmd;
	int fd;
	pid_t pid; /* of the keeper */
	uv_poll_t poll;
};

static void flush(struct nvmmd *nvmmd);
static void link_event(uv_poll_t *poll, int status, int events);

void keep_init(struct keep *keep)
{
	*keep = (struct keep){ .link = NULL };
	TAILQ_INIT(&keep->behind);
	TAILQ_INIT(&keep->waiting);
}

pid_t keep_pid(const struct keep *keep)
{
	return keep->link ? keep->link->pid : 0;
}

/* Connections */

static void socket_address(struct sockaddr_un *addr, const struct nvmmd *nvmmd)
{
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	/* However long the directory's own name is. */
	snprintf(addr->sun_path, sizeof(addr->sun_path), "/proc/self/fd/%d/" KEEPER_SOCKET,
		 nvmmd->epochs.dir);
}

/* Connects to who listens there. -ECONNREFUSED, -ENOENT: nobody. */
static int dial(int *ret, const struct nvmmd *nvmmd)
{
	struct timeval limit = { .tv_sec = TAKE_SECONDS };
	struct sockaddr_un addr;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), r = 0;

	if (fd < 0)
		return -errno;
	socket_address(&addr, nvmmd);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
	    connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		r = -errno;
	if (r < 0)
		close(fd);
	else
		*ret = fd;
	return r;
}

static void link_closed(uv_handle_t *handle)
{
	struct keep_link *link = handle->data;

	close(link->fd);
	free(link);
}

static void link_close(struct keep *keep)
{
	struct keep_link *link = keep->link;

	keep->link = NULL;
	if (link)
		uv_close((uv_handle_t *)&link->poll, link_closed);
}

/* Takes the socket to a keeper over, also on failure. */
static int link_new(struct nvmmd *nvmmd, int fd, pid_t pid)
{
	struct keep_link *link = calloc(1, sizeof(*link));
	int r = link ? uv_poll_init(&nvmmd->loop, &link->poll, fd) : -ENOMEM;

	if (r < 0) {
		free(link);
		close(fd);
		return r;
	}
	link->nvmmd = nvmmd;
	link->fd = fd;
	link->pid = pid;
	link->poll.data = link;
	uv_poll_start(&link->poll, UV_READABLE, link_event);
	/* A daemon that stops is not held up by it. */
	uv_unref((uv_handle_t *)&link->poll);
	nvmmd->epochs.keep.link = link;
	return 0;
}

/* Starting one */

static void process_closed(uv_handle_t *handle)
{
	free(handle);
}

/* Closing the handle does nothing to the process. */
static void forget_process(struct keep *keep)
{
	uv_process_t *process = take(keep->process);

	if (process)
		uv_close((uv_handle_t *)process, process_closed);
}

static void process_exited(uv_process_t *process, int64_t status, int signal)
{
	forget_process(process->data);
}

static int listen_socket(int *ret, const struct nvmmd *nvmmd)
{
	struct sockaddr_un addr;
	mode_t mask = umask(0177);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r = 0;

	socket_address(&addr, nvmmd);
	unlinkat(nvmmd->epochs.dir, KEEPER_SOCKET, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(fd, SOMAXCONN) < 0)
		r = -errno;
	umask(mask);
	if (r < 0 && fd >= 0)
		close(fd);
	if (r == 0)
		*ret = fd;
	return r;
}

/* Starts the process in a session of its own, with the listening socket and nothing else of
 * ours. */
static int spawn(struct nvmmd *nvmmd, int listener)
{
	char name[] = "nvmmd", argument[] = KEEPER_ARGUMENT, *args[] = { name, argument, NULL };
	uv_stdio_container_t stdio[KEEPER_LISTENER + 1] = {
		[KEEPER_LISTENER] = { .flags = UV_INHERIT_FD, .data.fd = listener },
	};
	uv_process_options_t options = {
		.exit_cb = process_exited, .file = keeper_program, .args = args, .cwd = "/",
		.flags = UV_PROCESS_DETACHED, .stdio_count = KEEPER_LISTENER + 1, .stdio = stdio,
	};
	uv_process_t *process = calloc(1, sizeof(*process));
	int r;

	if (!process)
		return -ENOMEM;
	forget_process(&nvmmd->epochs.keep);
	r = uv_spawn(&nvmmd->loop, process, &options);
	process->data = &nvmmd->epochs.keep;
	nvmmd->epochs.keep.process = process;
	if (r < 0)
		forget_process(&nvmmd->epochs.keep);
	else
		uv_unref((uv_handle_t *)process);
	return r;
}

static pid_t started_pid(const struct keep *keep)
{
	return keep->process ? keep->process->pid : 0;
}

/* It is connected to before it runs: what is sent to it is in its socket from then on. */
static int start_keeper(struct nvmmd *nvmmd)
{
	struct keep *keep = &nvmmd->epochs.keep;
	int listener = -1, fd = -1, r;

	keep->started = uv_now(&nvmmd->loop);
	r = listen_socket(&listener, nvmmd);
	if (r < 0)
		return r;
	r = dial(&fd, nvmmd);
	if (r == 0) {
		r = spawn(nvmmd, listener);
		if (r == 0)
			r = link_new(nvmmd, fd, started_pid(&nvmmd->epochs.keep));
		else
			close(fd);
	}
	close(listener);
	return r;
}

/* Behind */

static bool knows(const struct session *session)
{
	return session->epochs.memory < 0 || session->epochs.kept >= session->epochs.slots;
}

static void set_behind(struct session *session, bool behind)
{
	struct keep *keep = &session->nvmmd->epochs.keep;

	if (session->epochs.behind == behind)
		return;
	session->epochs.behind = behind;
	if (behind)
		TAILQ_INSERT_TAIL(&keep->behind, session, epochs.of_behind);
	else
		TAILQ_REMOVE(&keep->behind, session, epochs.of_behind);
}

/* Begins the requests again that wait; those whose session is still behind come back. */
static void resume_waiting(struct keep *keep)
{
	struct keep_requests list = TAILQ_HEAD_INITIALIZER(list);
	struct request *request;

	TAILQ_CONCAT(&list, &keep->waiting, of_epochs);
	while ((request = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, request, of_epochs);
		request_run(request);
	}
}

static void timer_fired(uv_timer_t *timer)
{
	flush(timer->data);
	resume_waiting(&((struct nvmmd *)timer->data)->epochs.keep);
}

static void again_in(struct nvmmd *nvmmd, uint64_t ms)
{
	struct keep *keep = &nvmmd->epochs.keep;

	if (keep->ready && !nvmmd->stopped && !uv_is_active((uv_handle_t *)&keep->timer))
		uv_timer_start(&keep->timer, timer_fired, ms, 0);
}

/* Another keeper, unless one was started just now. */
static int restart(struct nvmmd *nvmmd)
{
	struct keep *keep = &nvmmd->epochs.keep;
	uint64_t passed = uv_now(&nvmmd->loop) - keep->started;
	int r;

	if (keep->started != 0 && passed < RESTART_MS) {
		again_in(nvmmd, RESTART_MS - passed);
		return keep->error;
	}
	r = keep->error = start_keeper(nvmmd);
	if (r < 0) {
		log_error("the keeper of epoch slots cannot be started: %s", strerror(-r));
		again_in(nvmmd, RESTART_MS);
	}
	return r;
}

/* The keeper is gone: nobody knows of any session any more. */
static void lost(struct nvmmd *nvmmd, int r)
{
	struct session *session;
	unsigned n = 0;

	link_close(&nvmmd->epochs.keep);
	for (session = session_after(nvmmd, 0); session;
	     session = session_after(nvmmd, session->id)) {
		session->epochs.kept = 0;
		set_behind(session, session->epochs.memory >= 0);
		n += session->epochs.behind;
	}
	nvmmd->epochs.keep.n_drops = 0;
	log_warning("the keeper of epoch slots is gone (%s): another one is given those of %u "
		    "sessions", strerror(-r), n);
}

static int send_session(struct keep_link *link, struct session *session)
{
	const struct session_epochs *e = &session->epochs;
	struct keeper_packet packet = {
		.message = { .version = KEEPER_VERSION, .id = session->id, .slots = e->slots,
			     .op = e->kept > 0 ? KEEPER_GRANT : KEEPER_PUT },
		.fds = { e->memory, e->bell, session->peer.pidfd },
		.n_fds = e->kept > 0 ? 0 : KEPT_FDS,
	};
	int r = keeper_send(link->fd, &packet, MSG_DONTWAIT);

	if (r == 0)
		session->epochs.kept = e->slots;
	return r;
}

static int send_drops(struct keep *keep)
{
	int r = 0;

	while (r == 0 && keep->n_drops > 0) {
		struct keeper_packet packet = {
			.message = { .version = KEEPER_VERSION, .op = KEEPER_DROP,
				     .id = keep->drops[keep->n_drops - 1] },
		};

		r = keeper_send(keep->link->fd, &packet, MSG_DONTWAIT);
		keep->n_drops -= r == 0;
	}
	return r;
}

/* Sends what is behind, as much as there is room for. */
static void flush(struct nvmmd *nvmmd)
{
	struct keep *keep = &nvmmd->epochs.keep;
	struct session *session;
	int r = 0;

	if (!keep->link && !TAILQ_EMPTY(&keep->behind) && restart(nvmmd) < 0)
		return;
	if (!keep->link)
		return;
	while (r == 0 && (session = TAILQ_FIRST(&keep->behind))) {
		r = send_session(keep->link, session);
		if (r == 0)
			set_behind(session, false);
	}
	if (r == 0)
		r = send_drops(keep);
	if (r == 0 || r == -EAGAIN) {
		uv_poll_start(&keep->link->poll, UV_READABLE | (r < 0 ? UV_WRITABLE : 0),
			      link_event);
		/* Not here: who calls may be one of them. */
		if (r == 0 && !TAILQ_EMPTY(&keep->waiting))
			again_in(nvmmd, 1);
	} else if (r == -ETOOMANYREFS || r == -ENOMEM || r == -ENOBUFS) {
		again_in(nvmmd, REFS_MS);
	} else {
		lost(nvmmd, r);
		again_in(nvmmd, 1);
	}
}

int keep_session(struct session *session, struct request *request)
{
	struct nvmmd *nvmmd = session->nvmmd;
	struct keep *keep = &nvmmd->epochs.keep;
	int r = 0;

	if (knows(session))
		return 0;
	if (!keeper_program) {
		session->epochs.kept = session->epochs.slots;
		return 0;
	}
	if (!keep->link)
		r = restart(nvmmd);
	if (r < 0)
		return r;
	set_behind(session, true);
	flush(nvmmd);
	if (knows(session))
		return 0;
	TAILQ_INSERT_TAIL(&keep->waiting, request, of_epochs);
	return REQUEST_PENDING;
}

static void note_drop(struct keep *keep, uint64_t id)
{
	if (keep->n_drops == keep->room) {
		size_t room = MAX(keep->room * 2, (size_t)64);
		uint64_t *drops = NULL;

		if (room <= DROPS_MAX)
			drops = realloc(keep->drops, room * sizeof(*drops));
		if (!drops)
			return;
		keep->drops = drops;
		keep->room = room;
	}
	keep->drops[keep->n_drops++] = id;
}

void keep_drop(struct session *session)
{
	struct keep *keep = &session->nvmmd->epochs.keep;

	set_behind(session, false);
	/* One that could not be taken is held all the same. */
	if (!keep->link || (session->epochs.kept == 0 && !session->epochs.unread))
		return;
	session->epochs.kept = 0;
	note_drop(keep, session->id);
	flush(session->nvmmd);
}

/* Taking */

static int send_plain(int fd, enum keeper_op op, uint64_t id, int flags)
{
	struct keeper_packet packet = {
		.message = { .version = KEEPER_VERSION, .op = op, .id = id },
	};

	return keeper_send(fd, &packet, flags);
}

/* What the keeper holds of a session; what the session does not want is closed. */
static void take_kept(struct nvmmd *nvmmd, struct keeper_packet *packet)
{
	struct session *session = session_find(nvmmd, packet->message.id);

	if (!session)
		note_drop(&nvmmd->epochs.keep, packet->message.id);
	else if (packet->n_fds == KEPT_GIVEN && session->epochs.memory < 0 &&
		 session_epochs_take(session, packet->fds[KEPT_MEMORY], packet->fds[KEPT_BELL],
				     packet->message.slots) == 0)
		packet->n_fds = 0;
	keeper_packet_close(packet);
}

void keep_ask(struct session *session)
{
	struct keep *keep = &session->nvmmd->epochs.keep;
	uint64_t now = uv_now(&session->nvmmd->loop);

	if (!keep->link || session->epochs.lost || now - keep->asked < RESTART_MS)
		return;
	keep->asked = now;
	send_plain(keep->link->fd, KEEPER_TAKE, session->id, MSG_DONTWAIT);
}

static void link_readable(struct nvmmd *nvmmd)
{
	struct keep *keep = &nvmmd->epochs.keep;
	struct keeper_packet packet;
	struct session *session;
	int r = keeper_recv(&packet, keep->link->fd, MSG_DONTWAIT);

	if (r == -EAGAIN)
		return;
	if (r <= 0) {
		lost(nvmmd, r < 0 ? r : -EPIPE);
		flush(nvmmd);
		return;
	}
	if (packet.message.op == KEEPER_KEPT) {
		take_kept(nvmmd, &packet);
	} else if (packet.message.op == KEEPER_END) {
		session = session_find(nvmmd, packet.message.id);
		if (session && packet.message.slots == 0)
			session->epochs.lost = true;
	}
}

static void link_event(uv_poll_t *poll, int status, int events)
{
	struct keep_link *link = poll->data;
	struct nvmmd *nvmmd = link->nvmmd;

	if (status < 0 || events & UV_READABLE)
		link_readable(nvmmd);
	if (nvmmd->epochs.keep.link == link && events & UV_WRITABLE) {
		flush(nvmmd);
		resume_waiting(&nvmmd->epochs.keep);
	}
}

/* Receives all of it, to the end. */
static int take_all(struct nvmmd *nvmmd, int fd)
{
	struct keeper_packet packet;
	int r = send_plain(fd, KEEPER_TAKE, 0, 0);

	while (r >= 0) {
		r = keeper_recv(&packet, fd, 0);
		if (r == 0)
			return -EPIPE;
		if (r > 0 && packet.message.op == KEEPER_END)
			return 0;
		if (r > 0)
			take_kept(nvmmd, &packet);
	}
	return r;
}

/* Says which living sessions' slots nobody has. */
static void tell_unread(struct nvmmd *nvmmd)
{
	struct session *session;

	for (session = session_after(nvmmd, 0); session;
	     session = session_after(nvmmd, session->id))
		if (session->epochs.unread)
			client_log(nvmmd, CLIENT_COMPLAINT, session->peer.uid,
				   "session %" PRIu64 " (pid %d): its epochs cannot be read: what is "
				  "freed with delay in its pools waits until it has ended",
				  session->id, session->peer.process.pid);
}

/* A keeper that runs has listened itself, so the kernel says that it is the peer. */
static pid_t listening_pid(int fd)
{
	struct ucred cred = { .pid = 0 };
	socklen_t len = sizeof(cred);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	return cred.pid;
}

void keep_start(struct nvmmd *nvmmd)
{
	struct keep *keep = &nvmmd->epochs.keep;
	int fd, r;

	uv_timer_init(&nvmmd->loop, &keep->timer);
	uv_unref((uv_handle_t *)&keep->timer);
	keep->timer.data = nvmmd;
	keep->ready = true;
	r = dial(&fd, nvmmd);
	if (r == 0) {
		r = take_all(nvmmd, fd);
		if (r == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
			r = link_new(nvmmd, fd, listening_pid(fd));
		else
			close(fd);
		if (r < 0)
			log_error("the keeper of epoch slots does not give what it holds: %s",
				  strerror(-r));
	}
	tell_unread(nvmmd);
	flush(nvmmd);
}

void keep_stop(struct nvmmd *nvmmd)
{
	struct keep *keep = &nvmmd->epochs.keep;

	if (!keep->ready)
		return;
	keep->ready = false;
	resume_waiting(keep);
	forget_process(keep);
	link_close(keep);
	uv_close((uv_handle_t *)&keep->timer, NULL);
	free(take(keep->drops));
	keep->n_drops = keep->room = 0;
}
