// Log records of the process itself: what happened, in one line. Where they go is the business of whoever fills in the sink.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum moon_log_level { MOON_LOG_DEBUG, MOON_LOG_INFO, MOON_LOG_WARN, MOON_LOG_ERROR };

struct moon_log {
    atomic_int level; // enum moon_log_level: records below it are dropped before they are formatted
    // Takes one formatted message, not NUL-terminated and without a line end. Thread safe. Control bytes are escaped already.
    void (*write)(void *owner, enum moon_log_level level, const char *text, size_t len);
    void *owner;
};

void moon_log_write(const struct moon_log *log, enum moon_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static inline bool moon_log_is_on(const struct moon_log *log, enum moon_log_level level)
{
    return (int)level >= atomic_load_explicit(&log->level, memory_order_relaxed);
}

const char *moon_log_level_name(enum moon_log_level level);
// "debug", "info", "warn", "error"; anything else is info.
enum moon_log_level moon_log_level_from(const char *name, size_t len);

// debug() arguments are not evaluated below the level.
#define moon_log_debug(log, ...)                                \
    do {                                                        \
        if (moon_log_is_on((log), MOON_LOG_DEBUG))              \
            moon_log_write((log), MOON_LOG_DEBUG, __VA_ARGS__); \
    } while (0)
#define moon_log_info(log, ...) moon_log_write((log), MOON_LOG_INFO, __VA_ARGS__)
#define moon_log_warn(log, ...) moon_log_write((log), MOON_LOG_WARN, __VA_ARGS__)
#define moon_log_error(log, ...) moon_log_write((log), MOON_LOG_ERROR, __VA_ARGS__)
