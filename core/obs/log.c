// Formatting of log records. A record is at most 1 KiB; control bytes become \xNN so that one record is one line (A67).
#include "obs/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { RECORD_LEN = 1024 };

static const char *const level_names[] = {"debug", "info", "warn", "error"};

const char *moon_log_level_name(enum moon_log_level level)
{
    return level_names[level];
}

enum moon_log_level moon_log_level_from(const char *name, size_t len)
{
    for (int i = 0; i < 4; i++)
        if (strlen(level_names[i]) == len && memcmp(level_names[i], name, len) == 0)
            return (enum moon_log_level)i;
    return MOON_LOG_INFO;
}

static size_t escape(const char *from, size_t len, char *to, size_t cap)
{
    size_t used = 0;
    for (size_t i = 0; i < len && used + 4 < cap; i++) {
        unsigned char c = (unsigned char)from[i];
        if (c >= 0x20 && c != 0x7f)
            to[used++] = (char)c;
        else
            used += (size_t)snprintf(to + used, cap - used, "\\x%02x", c);
    }
    return used;
}

void moon_log_write(const struct moon_log *log, enum moon_log_level level, const char *format, ...)
{
    char text[RECORD_LEN], line[RECORD_LEN];
    va_list args;
    if (!moon_log_is_on(log, level) || !log->write)
        return;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0)
        return;
    size_t kept = (size_t)len < sizeof text ? (size_t)len : sizeof text - 1;
    log->write(log->owner, level, line, escape(text, kept, line, sizeof line));
}
