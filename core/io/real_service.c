// What a service manager hands over and wants to hear: sockets that it has bound (LISTEN_FDS) and readiness (NOTIFY_SOCKET), the
// protocols of systemd (sd_listen_fds(3), sd_notify(3)). Sockets stay open here, whatever the gateway does with its duplicates,
// so that no connection attempt is refused while it restarts.
#include "io/real_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

void real_inherit(struct real_world *world)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    if (!pid || !count || strtol(pid, NULL, 10) != getpid())
        return;
    long fds = strtol(count, NULL, 10);
    for (int fd = FIRST_FD; fd < FIRST_FD + fds && world->inherited_count < REAL_INHERITED_COUNT;
         fd++) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        world->inherited[world->inherited_count++] = fd;
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

int real_inherited(const struct real_world *world, const struct moon_address *at)
{
    for (unsigned i = 0; i < world->inherited_count; i++) {
        struct sockaddr_storage bound = {0};
        socklen_t len = sizeof bound;
        struct moon_address address;
        if (getsockname(world->inherited[i], (struct sockaddr *)&bound, &len) < 0)
            continue;
        real_from_sockaddr(&bound, &address);
        if (moon_address_equal(&address, at))
            return world->inherited[i];
    }
    return -ENOENT;
}

void real_notify(struct moon_world *world, const char *state)
{
    (void)world;
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof at.sun_path)
        return;
    memcpy(at.sun_path, path, len);
    if (path[0] == '@') // an abstract name
        at.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&at,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}
