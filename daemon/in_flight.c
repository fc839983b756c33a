/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Descriptors in flight.
 *
 * A connection has at most one unread reply. Whether it was read is asked of the kernel (SIOCOUTQ), when it matters:
 * when the next request comes, when the connection is closed, and for some of a user's connections when the
 * user is over its limit. So those that read cost nothing but a count.
 *
 * A connection that is closed with an unread reply keeps its socket here until the reply is read, or the peer's end
 * is closed: the kernel frees the queue then, and the same figure becomes 0. Else a client could leave
 * any number of such sockets behind, each with descriptors in flight.
 *
 * ETOOMANYREFS may come all the same, from other processes of the daemon's user. The reply is kept and sent
 * later: its client is innocent.
 */
#include "daemon/in_flight.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/macro.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"

#define TICK_MS 20u      /* while somebody waits */
#define LINGER_MS 100u   /* while sockets linger, and nobody waits */
#define LOOKS 16u        /* at a user's sockets, when it is over its limit */
#define TICK_LOOKS 128u  /* at sockets that linger, in a tick */
#define TICK_REQUESTS 64u

struct lingering {
	struct in_flight flight;
	bool no_fds;
	TAILQ_ENTRY(lingering) of_flights;
};

struct kept_reply {
	struct connection *connection; /* a reference */
	int fds[FRAME_FDS_MAX];
	size_t n_fds;
	TAILQ_ENTRY(kept_reply) of_flights;
	size_t len;
	uint8_t data[];
};

static void on_tick(uv_timer_t *timer);

static void tick_in(struct nvmmd *nvmmd, uint64_t ms)
{
	uv_timer_t *timer = &nvmmd->flights.timer;

	if (!nvmmd->flights.ready)
		return;
	if (!uv_is_active((uv_handle_t *)timer) || uv_timer_get_due_in(timer) > ms)
		uv_timer_start(timer, on_tick, ms, 0);
}

/* Counts */

static void set_count(struct nvmmd *nvmmd, struct in_flight *flight, uint32_t n)
{
	struct user *user = flight->user;

	if (flight->n == 0 && n > 0)
		TAILQ_INSERT_TAIL(&user->unread, flight, of_user);
	else if (flight->n > 0 && n == 0)
		TAILQ_REMOVE(&user->unread, flight, of_user);
	nvmmd->flights.n += n - flight->n;
	user->in_flight += n - flight->n;
	flight->n = n;
}

void in_flight_sent(struct nvmmd *nvmmd, struct in_flight *flight, uint32_t n)
{
	set_count(nvmmd, flight, n);
}

void in_flight_read(struct nvmmd *nvmmd, struct in_flight *flight)
{
	set_count(nvmmd, flight, 0);
}

/* Looks at some sockets of a user, those first that were not looked at for longest. */
static void look_again(struct nvmmd *nvmmd, struct user *user)
{
	struct in_flight *flight;

	for (unsigned i = 0; i < LOOKS && (flight = TAILQ_FIRST(&user->unread)); i++) {
		if (frame_unread(flight->fd) == 0) {
			set_count(nvmmd, flight, 0);
		} else {
			TAILQ_REMOVE(&user->unread, flight, of_user);
			TAILQ_INSERT_TAIL(&user->unread, flight, of_user);
		}
	}
}

/* Also when all may have no more: one who has none in flight may have some. */
static bool may_send(const struct flights *flights, const struct user *user)
{
	return user->in_flight + FRAME_FDS_MAX <= flights->user_max &&
	       (user->in_flight == 0 || flights->n + FRAME_FDS_MAX <= flights->max);
}

bool in_flight_admit(struct request *request)
{
	struct nvmmd *nvmmd = request->nvmmd;
	struct user *user = request->connection->flight.user;

	if (may_send(&nvmmd->flights, user))
		return true;
	look_again(nvmmd, user);
	if (may_send(&nvmmd->flights, user))
		return true;
	if (!request->flight_waited)
		nvmmd->counters.requests_unread++;
	request->flight_waited = true;
	TAILQ_INSERT_TAIL(&nvmmd->flights.waiting, request, of_pool);
	tick_in(nvmmd, TICK_MS);
	return false;
}

/* Sockets that linger */

void in_flight_close(struct nvmmd *nvmmd, struct in_flight *flight, bool no_fds)
{
	struct lingering *lingering = NULL;
	uint32_t n = flight->n;

	set_count(nvmmd, flight, 0);
	if (n > 0 && nvmmd->flights.ready && frame_unread(flight->fd) > 0)
		lingering = calloc(1, sizeof(*lingering));
	if (!lingering) {
		server_close_socket(&nvmmd->server, flight->fd, flight->user->uid, no_fds);
		return;
	}
	lingering->flight.fd = flight->fd;
	lingering->flight.user = user_ref(flight->user);
	lingering->no_fds = no_fds;
	set_count(nvmmd, &lingering->flight, n);
	lingering->flight.user->lingering++;
	nvmmd->flights.n_lingering++;
	TAILQ_INSERT_TAIL(&nvmmd->flights.lingering, lingering, of_flights);
	tick_in(nvmmd, LINGER_MS);
}

static void linger_end(struct nvmmd *nvmmd, struct lingering *lingering)
{
	struct user *user = lingering->flight.user;

	TAILQ_REMOVE(&nvmmd->flights.lingering, lingering, of_flights);
	set_count(nvmmd, &lingering->flight, 0);
	nvmmd->flights.n_lingering--;
	user->lingering--;
	server_close_socket(&nvmmd->server, lingering->flight.fd, user->uid, lingering->no_fds);
	user_unref(user);
	free(lingering);
}

static void look_at_lingering(struct nvmmd *nvmmd)
{
	struct flights *flights = &nvmmd->flights;
	struct lingering *lingering;

	for (unsigned i = MIN(TICK_LOOKS, flights->n_lingering); i > 0; i--) {
		lingering = TAILQ_FIRST(&flights->lingering);
		TAILQ_REMOVE(&flights->lingering, lingering, of_flights);
		TAILQ_INSERT_TAIL(&flights->lingering, lingering, of_flights);
		if (frame_unread(lingering->flight.fd) == 0)
			linger_end(nvmmd, lingering);
	}
}

/* Replies that are kept */

bool in_flight_keep(struct connection *connection, const void *data, size_t len, const int *fds, size_t n_fds)
{
	struct nvmmd *nvmmd = connection->nvmmd;
	struct kept_reply *kept = nvmmd->flights.ready ? malloc(sizeof(*kept) + len) : NULL;

	if (!kept)
		return false;
	kept->n_fds = 0;
	for (size_t i = 0; i < n_fds; i++) {
		kept->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		if (kept->fds[i] < 0)
			break;
		kept->n_fds++;
	}
	kept->connection = connection_ref(connection);
	kept->len = len;
	memcpy(kept->data, data, len);
	connection->kept = kept;
	TAILQ_INSERT_TAIL(&nvmmd->flights.kept, kept, of_flights);
	if (kept->n_fds < n_fds) {
		in_flight_forget(connection);
		return false;
	}
	nvmmd->counters.replies_kept++;
	tick_in(nvmmd, TICK_MS);
	return true;
}

void in_flight_forget(struct connection *connection)
{
	struct kept_reply *kept = take(connection->kept);

	if (!kept)
		return;
	TAILQ_REMOVE(&connection->nvmmd->flights.kept, kept, of_flights);
	for (size_t i = 0; i < kept->n_fds; i++)
		close(kept->fds[i]);
	free(kept);
	connection_unref(connection);
}

/* Sends those that the kernel takes now. Each is tried once: one that fails is kept again, at the end. */
static void send_kept(struct nvmmd *nvmmd)
{
	struct kept_reply *kept, *last = TAILQ_LAST(&nvmmd->flights.kept, kept_replies);
	bool end = false;

	while (!end && (kept = TAILQ_FIRST(&nvmmd->flights.kept))) {
		struct connection *connection = connection_ref(kept->connection);

		end = kept == last;
		connection->kept = NULL;
		TAILQ_REMOVE(&nvmmd->flights.kept, kept, of_flights);
		connection_send(connection, kept->data, kept->len, kept->fds, kept->n_fds);
		for (size_t i = 0; i < kept->n_fds; i++)
			close(kept->fds[i]);
		connection_unref(kept->connection);
		connection_unref(connection);
		free(kept);
	}
}

/* Ticks */

static void resume_waiting(struct nvmmd *nvmmd)
{
	struct flights *flights = &nvmmd->flights;
	struct request *request, *last = TAILQ_LAST(&flights->waiting, flight_requests);
	bool end = false;

	for (unsigned i = 0; !end && i < TICK_REQUESTS && (request = TAILQ_FIRST(&flights->waiting)); i++) {
		end = request == last;
		TAILQ_REMOVE(&flights->waiting, request, of_pool);
		request_run(request);
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct nvmmd *nvmmd = timer->data;
	struct flights *flights = &nvmmd->flights;

	look_at_lingering(nvmmd);
	resume_waiting(nvmmd);
	send_kept(nvmmd);
	if (!TAILQ_EMPTY(&flights->waiting) || !TAILQ_EMPTY(&flights->kept))
		tick_in(nvmmd, TICK_MS);
	else if (flights->n_lingering > 0)
		tick_in(nvmmd, LINGER_MS);
}

/* Begin and end */

void in_flight_limit(struct flights *flights, uint64_t open_max)
{
	uint32_t most = (uint32_t)MIN(open_max, (uint64_t)1 << 20);

	flights->user_max = MAX(most / 4, FRAME_FDS_MAX);
	flights->max = MAX(most / 2, 2 * FRAME_FDS_MAX);
	TAILQ_INIT(&flights->lingering);
	TAILQ_INIT(&flights->waiting);
	TAILQ_INIT(&flights->kept);
}

void in_flight_start(struct nvmmd *nvmmd)
{
	struct flights *flights = &nvmmd->flights;

	uv_timer_init(&nvmmd->loop, &flights->timer);
	flights->timer.data = nvmmd;
	flights->ready = true;
}

void in_flight_stop(struct nvmmd *nvmmd)
{
	struct flights *flights = &nvmmd->flights;
	struct request *request;

	if (!flights->ready)
		return;
	flights->ready = false;
	while ((request = TAILQ_FIRST(&flights->waiting))) {
		TAILQ_REMOVE(&flights->waiting, request, of_pool);
		request_free(request);
	}
	while (!TAILQ_EMPTY(&flights->lingering))
		linger_end(nvmmd, TAILQ_FIRST(&flights->lingering));
	uv_close((uv_handle_t *)&flights->timer, NULL);
}
