// Texts of the error space: ours, and the errno values that a proxy meets every day.
// Invariant: every text is static, so a log record may keep the pointer; strerror would not promise
// that.
#include "base/err.h"

#include <errno.h>
#include <stddef.h>

struct err_entry {
    int err;
    const char *text;
};

static const struct err_entry entries[] = {
    {0, "success"},
    {MOON_EOF, "end of stream"},
    {MOON_ETIMEOUT, "deadline passed"},
    {MOON_EPROTO, "protocol error"},
    {MOON_ELIMIT, "limit reached"},
    {MOON_ECONFIG, "invalid configuration"},
    {MOON_ECANCELED, "canceled"},
    {MOON_ENAME, "name could not be resolved"},
    {MOON_EBODY, "body too long"},
    {MOON_EBUSY, "too many under way"},
    {MOON_ELATER, "not supported yet"},
    {MOON_EURL, "unusable URL"},
    {MOON_EMETHOD, "unusable method"},
    {MOON_EFIELD, "unusable header field"},
    {MOON_EUPSTREAM, "no such upstream"},
    {MOON_ENOENDPOINT, "the upstream has no endpoint"},
    {MOON_ETLS, "TLS failed"},
    {MOON_ECUT, "connection ended without close_notify"},
    {MOON_ECERT, "certificate not accepted"},
    {MOON_ENOTBEGUN, "refused before anything was done"},
    {MOON_ERESET, "stream reset by peer"},
    {MOON_EALPN, "the peer does not speak the protocol"},
    {MOON_EGUESS, "the peer speaks another protocol than was guessed"},
    {MOON_ESILENT, "the peer answers no more"},
    {-EACCES, "permission denied"},
    {-EADDRINUSE, "address already in use"},
    {-EADDRNOTAVAIL, "cannot assign requested address"},
    {-EAFNOSUPPORT, "address family not supported"},
    {-EAGAIN, "resource temporarily unavailable"},
    {-EALREADY, "already in progress"},
    {-EBADF, "bad file descriptor"},
    {-EBADMSG, "bad message"},
    {-EBUSY, "device or resource busy"},
    {-ECANCELED, "operation canceled"},
    {-ECONNABORTED, "connection aborted"},
    {-ECONNREFUSED, "connection refused"},
    {-ECONNRESET, "connection reset by peer"},
    {-EDESTADDRREQ, "destination address required"},
    {-EEXIST, "file exists"},
    {-EFAULT, "bad address"},
    {-EFBIG, "file too large"},
    {-EHOSTDOWN, "host is down"},
    {-EHOSTUNREACH, "no route to host"},
    {-EINPROGRESS, "operation in progress"},
    {-EINTR, "interrupted system call"},
    {-EINVAL, "invalid argument"},
    {-EIO, "input/output error"},
    {-EISCONN, "already connected"},
    {-EISDIR, "is a directory"},
    {-ELOOP, "too many symbolic links"},
    {-EMFILE, "too many open files"},
    {-EMSGSIZE, "message too long"},
    {-ENAMETOOLONG, "file name too long"},
    {-ENETDOWN, "network is down"},
    {-ENETRESET, "connection reset by network"},
    {-ENETUNREACH, "network is unreachable"},
    {-ENFILE, "too many open files in system"},
    {-ENOBUFS, "no buffer space available"},
    {-ENODEV, "no such device"},
    {-ENOENT, "no such file or directory"},
    {-ENOMEM, "out of memory"},
    {-ENOPROTOOPT, "protocol not available"},
    {-ENOSPC, "no space left on device"},
    {-ENOSYS, "function not implemented"},
    {-ENOTCONN, "not connected"},
    {-ENOTDIR, "not a directory"},
    {-ENOTSOCK, "not a socket"},
    {-ENOTSUP, "operation not supported"},
    {-EOVERFLOW, "value too large"},
    {-EPERM, "operation not permitted"},
    {-EPIPE, "broken pipe"},
    {-EPROTO, "protocol error"},
    {-EPROTONOSUPPORT, "protocol not supported"},
    {-EPROTOTYPE, "wrong protocol type for socket"},
    {-ERANGE, "result out of range"},
    {-EROFS, "read-only file system"},
    {-ESHUTDOWN, "endpoint is shut down"},
    {-ESRCH, "no such process"},
    {-ETIMEDOUT, "connection timed out"},
    {-EXDEV, "cross-device link"},
};

const char *moon_err_text(int err)
{
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        if (entries[i].err == err)
            return entries[i].text;
    }
    return err <= MOON_EOF ? "unknown error" : "unknown system error";
}

bool moon_err_is_of_stream(int err)
{
    return err == MOON_ENOTBEGUN || err == MOON_ERESET || err == MOON_EGUESS;
}
