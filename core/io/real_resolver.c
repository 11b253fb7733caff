// The resolver of the real world: c-ares, its sockets watched by libuv's poll on the loop that owns it, its time-outs by one timer
// of the wheel. /etc/hosts goes first; the rest is as /etc/resolv.conf says, but for servers that are given.
//
//   resolve -> /etc/hosts? -> ares_search -> sockets <-> uv_poll -> ares_process_fd -> on_answer -> fn
//
// c-ares drops answers with another id or from another address by itself, and asks again by TCP for what came truncated.
#include "io/resolver.h"

#include "base/err.h"
#include "io/real_priv.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

// Answers of so many bytes come by UDP (RFC 6891; the size that is not fragmented anywhere): without it each name with more than
// 29 addresses would cost a TCP connection at every question.
enum { ANSWER_MAX_LEN = 1232 };
enum { TRY_COUNT = 2, ADDRESS_MAX_COUNT = 4096, HOSTS_TTL_S = 5 };

struct real_resolver {
    struct moon_resolver base; // first
    struct real_loop *loop;
    ares_channel channel;
    struct moon_timer timer;
    struct moon_list watches; // of struct watch
};

// A socket of c-ares. Freed by libuv's close.
struct watch {
    struct moon_list node;
    uv_poll_t handle;
    ares_socket_t fd;
    struct real_resolver *resolver;
};

struct query {
    struct real_resolver *resolver;
    moon_resolved_fn *fn;
    void *owner;
    int family; // AF_
};

// ---- sockets and time

// c-ares wants to be called again when its next time-out has passed.
static void rearm(struct real_resolver *resolver)
{
    struct timeval wait, *next = ares_timeout(resolver->channel, NULL, &wait);
    struct moon_loop *loop = &resolver->loop->base;
    if (next)
        moon_loop_timer_add(loop, &resolver->timer,
                            (uint64_t)next->tv_sec * 1000 + (uint64_t)next->tv_usec / 1000 + 1);
    else
        moon_loop_timer_del(loop, &resolver->timer);
}

static void on_timer(struct moon_timer *timer)
{
    struct real_resolver *resolver = MOON_CONTAINER(timer, struct real_resolver, timer);
    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    rearm(resolver);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct watch *watch = handle->data;
    struct real_resolver *resolver = watch->resolver;
    ares_socket_t fd = watch->fd; // the call may end the watch
    bool is_broken = status < 0;
    ares_process_fd(resolver->channel, is_broken || events & UV_READABLE ? fd : ARES_SOCKET_BAD,
                    is_broken || events & UV_WRITABLE ? fd : ARES_SOCKET_BAD);
    rearm(resolver);
}

static void on_watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void watch_end(struct watch *watch)
{
    moon_list_del(&watch->node);
    uv_poll_stop(&watch->handle);
    uv_close((uv_handle_t *)&watch->handle, on_watch_closed);
}

static struct watch *watch_of(struct real_resolver *resolver, ares_socket_t fd)
{
    for (struct moon_list *at = resolver->watches.next; at != &resolver->watches; at = at->next) {
        struct watch *watch = MOON_CONTAINER(at, struct watch, node);
        if (watch->fd == fd)
            return watch;
    }
    struct watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        abort();
    watch->fd = fd;
    watch->resolver = resolver;
    watch->handle.data = watch;
    uv_poll_init(&resolver->loop->uv, &watch->handle, fd);
    moon_list_add_before(&resolver->watches, &watch->node);
    return watch;
}

// c-ares tells what it waits for; neither: it closes the socket.
static void on_socket(void *data, ares_socket_t fd, int is_readable, int is_writable)
{
    struct real_resolver *resolver = data;
    struct watch *watch = watch_of(resolver, fd);
    if (is_readable || is_writable)
        uv_poll_start(&watch->handle,
                      (is_readable ? UV_READABLE : 0) | (is_writable ? UV_WRITABLE : 0), on_poll);
    else
        watch_end(watch);
    uv_async_send(&resolver->loop->wake); // libuv takes the change in its next turn
}

// ---- answers

static void answer(struct query *query, int err, const struct moon_address *addresses, size_t count,
                   uint32_t ttl_s)
{
    query->fn(query->owner, &(struct moon_resolved){err, addresses, count, ttl_s});
    free(query);
}

static int err_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
        return MOON_ENAME;
    case ARES_EDESTRUCTION:
    case ARES_ECANCELLED:
        return MOON_ECANCELED;
    case ARES_ETIMEOUT:
        return MOON_ETIMEOUT;
    case ARES_ECONNREFUSED:
        return -ECONNREFUSED;
    case ARES_EBADRESP:
    case ARES_EFORMERR:
        return -EBADMSG;
    case ARES_ENOMEM:
        return -ENOMEM;
    default:
        return -EIO;
    }
}

// The addresses of a reply; malloc'd. 0 or an error.
static int parse_a(const unsigned char *reply, int len, struct moon_address *out, size_t *count,
                   uint32_t *ttl_s)
{
    struct ares_addrttl *records = calloc(ADDRESS_MAX_COUNT, sizeof *records);
    int record_count = ADDRESS_MAX_COUNT;
    if (!records)
        return -ENOMEM;
    int status = ares_parse_a_reply(reply, len, NULL, records, &record_count);
    for (int i = 0; status == ARES_SUCCESS && i < record_count; i++) {
        struct moon_address *at = &out[(*count)++];
        at->family = MOON_FAMILY_IPV4;
        memcpy(at->ip, &records[i].ipaddr, 4);
        if (records[i].ttl >= 0 && (uint32_t)records[i].ttl < *ttl_s)
            *ttl_s = (uint32_t)records[i].ttl;
    }
    free(records);
    return err_of(status);
}

static int parse_aaaa(const unsigned char *reply, int len, struct moon_address *out, size_t *count,
                      uint32_t *ttl_s)
{
    struct ares_addr6ttl *records = calloc(ADDRESS_MAX_COUNT, sizeof *records);
    int record_count = ADDRESS_MAX_COUNT;
    if (!records)
        return -ENOMEM;
    int status = ares_parse_aaaa_reply(reply, len, NULL, records, &record_count);
    for (int i = 0; status == ARES_SUCCESS && i < record_count; i++) {
        struct moon_address *at = &out[(*count)++];
        at->family = MOON_FAMILY_IPV6;
        memcpy(at->ip, &records[i].ip6addr, 16);
        if (records[i].ttl >= 0 && (uint32_t)records[i].ttl < *ttl_s)
            *ttl_s = (uint32_t)records[i].ttl;
    }
    free(records);
    return err_of(status);
}

// Whether this machine has any way to there: a host without IPv6 must not be sent to the AAAA half of its upstreams.
// Connecting a datagram socket sends nothing.
static bool has_route(const struct moon_address *address)
{
    struct moon_address to = *address;
    struct sockaddr_storage at;
    to.port = NAMESERVER_PORT;
    socklen_t len = real_to_sockaddr(&to, &at);
    int fd = socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno != EAFNOSUPPORT;
    int err = connect(fd, (struct sockaddr *)&at, len) < 0 ? errno : 0;
    close(fd);
    return err != ENETUNREACH && err != EADDRNOTAVAIL && err != EAFNOSUPPORT;
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *reply, int len)
{
    (void)timeouts;
    struct query *query = arg;
    size_t count = 0;
    uint32_t ttl_s = UINT32_MAX;
    int err = err_of(status);
    struct moon_address *addresses = NULL;
    if (!err) {
        addresses = calloc(ADDRESS_MAX_COUNT, sizeof *addresses);
        err = !addresses                 ? -ENOMEM
              : query->family == AF_INET ? parse_a(reply, len, addresses, &count, &ttl_s)
                                         : parse_aaaa(reply, len, addresses, &count, &ttl_s);
    }
    if (!err && (count == 0 || !has_route(&addresses[0]))) {
        err = MOON_ENAME;
        count = 0;
    }
    answer(query, err, addresses, count, ttl_s == UINT32_MAX ? 0 : ttl_s);
    free(addresses);
}

// ---- asking

// Writes the addresses that a host entry holds.
static size_t addresses_of(const struct hostent *host, struct moon_address *out, size_t cap)
{
    size_t count = 0;
    for (; host->h_addr_list[count] && count < cap; count++) {
        out[count] = (struct moon_address){0};
        out[count].family = host->h_addrtype == AF_INET ? MOON_FAMILY_IPV4 : MOON_FAMILY_IPV6;
        memcpy(out[count].ip, host->h_addr_list[count], (size_t)host->h_length);
    }
    return count;
}

// A name with an entry of either family is not asked for elsewhere. True when it was answered.
static bool ask_file(struct query *query, const char *host)
{
    struct hostent *entry = NULL;
    struct moon_address addresses[64];
    ares_channel channel = query->resolver->channel;
    int other = query->family == AF_INET ? AF_INET6 : AF_INET;
    if (ares_gethostbyname_file(channel, host, query->family, &entry) == ARES_SUCCESS) {
        size_t count = addresses_of(entry, addresses, sizeof addresses / sizeof *addresses);
        ares_free_hostent(entry);
        answer(query, count ? 0 : MOON_ENAME, addresses, count, HOSTS_TTL_S);
        return true;
    }
    if (ares_gethostbyname_file(channel, host, other, &entry) != ARES_SUCCESS)
        return false;
    ares_free_hostent(entry);
    answer(query, MOON_ENAME, NULL, 0, HOSTS_TTL_S);
    return true;
}

static void resolve(struct moon_resolver *base, struct moon_slice host, enum moon_family family,
                    moon_resolved_fn *fn, void *owner)
{
    struct real_resolver *resolver = (struct real_resolver *)base;
    struct query *query = calloc(1, sizeof *query);
    char name[256];
    if (!query)
        abort();
    *query = (struct query){resolver, fn, owner, family == MOON_FAMILY_IPV6 ? AF_INET6 : AF_INET};
    if (host.len >= sizeof name) {
        answer(query, MOON_ENAME, NULL, 0, 0);
        return;
    }
    memcpy(name, host.ptr, host.len);
    name[host.len] = '\0';
    if (ask_file(query, name))
        return;
    ares_search(resolver->channel, name, ns_c_in, query->family == AF_INET ? ns_t_a : ns_t_aaaa,
                on_answer, query);
    rearm(resolver);
}

// ---- making one

static void resolver_free(struct moon_resolver *base)
{
    struct real_resolver *resolver = (struct real_resolver *)base;
    ares_destroy(resolver->channel); // tells every open query, closes the sockets
    while (!moon_list_is_empty(&resolver->watches))
        watch_end(MOON_CONTAINER(resolver->watches.next, struct watch, node));
    moon_loop_timer_del(&resolver->loop->base, &resolver->timer);
    free(resolver);
}

static const struct moon_resolver_ops resolver_ops = {.resolve = resolve, .free = resolver_free};

static int set_servers(ares_channel channel, const struct moon_resolver_options *options)
{
    struct ares_addr_port_node *nodes = calloc(options->server_count + 1, sizeof *nodes);
    if (!nodes)
        abort();
    for (size_t i = 0; i < options->server_count; i++) {
        const struct moon_address *server = &options->servers[i];
        struct ares_addr_port_node *node = &nodes[i];
        node->next = i + 1 < options->server_count ? node + 1 : NULL;
        node->family = server->family == MOON_FAMILY_IPV6 ? AF_INET6 : AF_INET;
        node->udp_port = node->tcp_port = server->port;
        memcpy(&node->addr, server->ip, server->family == MOON_FAMILY_IPV6 ? 16 : 4);
    }
    int status = options->server_count ? ares_set_servers_ports(channel, nodes) : ARES_SUCCESS;
    free(nodes);
    return status;
}

struct moon_resolver *real_resolver_new(struct moon_loop *loop,
                                        const struct moon_resolver_options *options)
{
    struct real_resolver *resolver = calloc(1, sizeof *resolver);
    if (!resolver)
        abort();
    resolver->base.ops = &resolver_ops;
    resolver->loop = real_loop(loop);
    resolver->timer.fn = on_timer;
    moon_list_init(&resolver->watches);
    struct ares_options settings = {.flags = ARES_FLAG_EDNS,
                                    .ednspsz = ANSWER_MAX_LEN,
                                    .timeout = (int)options->timeout_ms,
                                    .tries = TRY_COUNT,
                                    .sock_state_cb = on_socket,
                                    .sock_state_cb_data = resolver};
    if (ares_init_options(&resolver->channel, &settings,
                          ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                              ARES_OPT_SOCK_STATE_CB) != ARES_SUCCESS) {
        free(resolver);
        return NULL;
    }
    if (set_servers(resolver->channel, options) != ARES_SUCCESS) {
        resolver_free(&resolver->base);
        return NULL;
    }
    return &resolver->base;
}
