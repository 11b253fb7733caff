// CPU time and resident memory of a process. schedstat counts nanoseconds where the kernel has it; else stat's ticks.
#include "load.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_text(const char *path, char *to, size_t cap)
{
    FILE *file = fopen(path, "r");
    size_t len = file ? fread(to, 1, cap - 1, file) : 0;
    to[len] = 0;
    if (file)
        fclose(file);
    return len > 0;
}

static uint64_t ticks_ns(const char *stat)
{
    const char *at = strrchr(stat, ')'); // the name may hold anything
    unsigned long long user = 0, system = 0;
    if (at)
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
    return (user + system) * (1000000000ull / (unsigned long long)sysconf(_SC_CLK_TCK));
}

static void add_thread(int pid, const char *thread, struct usage *usage)
{
    char path[320], text[1024];
    snprintf(path, sizeof path, "/proc/%d/task/%.16s/schedstat", pid, thread);
    if (read_text(path, text, sizeof text)) {
        char *end;
        usage->cpu_ns += strtoull(text, &end, 10);
        usage->wait_ns += strtoull(end, NULL, 10);
        return;
    }
    snprintf(path, sizeof path, "/proc/%d/task/%.16s/stat", pid, thread);
    if (read_text(path, text, sizeof text))
        usage->cpu_ns += ticks_ns(text);
}

static uint64_t resident_len(int pid)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid); // exact, where status may lag
    const char *at = read_text(path, text, sizeof text) ? strstr(text, "\nRss:") : NULL;
    if (at)
        return strtoull(at + 5, NULL, 10) * 1024;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    at = read_text(path, text, sizeof text) ? strstr(text, "\nVmRSS:") : NULL;
    return at ? strtoull(at + 7, NULL, 10) * 1024 : 0;
}

void usage_read(int pid, struct usage *usage)
{
    char path[64];
    *usage = (struct usage){0};
    if (!pid)
        return;
    usage->rss_len = resident_len(pid);
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *threads = opendir(path);
    if (!threads)
        fail("the proxy is gone");
    for (struct dirent *entry; (entry = readdir(threads)) != NULL;)
        if (entry->d_name[0] != '.')
            add_thread(pid, entry->d_name, usage);
    closedir(threads);
}

uint64_t usage_glance_len(int pid)
{
    char path[64], text[256];
    unsigned long long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    if (pid && read_text(path, text, sizeof text))
        sscanf(text, "%*u %llu", &pages);
    return pages * (unsigned long long)sysconf(_SC_PAGESIZE);
}
