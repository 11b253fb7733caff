// The bytes of a request: as a plain client sends it, or with the 20 fields of a browser; to one route, or to the n-th of many.
#include "load.h"

#include <stdio.h>

enum { ROUTES_PER_HOST = 10 };

static const char browser_fields[] =
    "Cache-Control: max-age=0\r\n"
    "sec-ch-ua: \"Chromium\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\n"
    "sec-ch-ua-mobile: ?0\r\n"
    "sec-ch-ua-platform: \"Linux\"\r\n"
    "DNT: 1\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/124.0.0.0 Safari/537.36\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    "*/*;q=0.8\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Sec-Fetch-User: ?1\r\n"
    "Sec-Fetch-Dest: document\r\n"
    "Referer: https://www.example.com/shop\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n"
    "Cookie: session=0123456789abcdef; theme=dark; consent=yes\r\n"
    "If-None-Match: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\n"
    "X-Requested-With: XMLHttpRequest\r\n";

static const char *const fields[] = {
    [FIELDS_PLAIN] = "User-Agent: load\r\nAccept: */*\r\n",
    [FIELDS_BROWSER] = browser_fields,
    [FIELDS_KEY] = "User-Agent: load\r\nAccept: */*\r\nX-Api-Key: 3f6c1f0f9a7d4b5e\r\n",
};

char *request_head(const struct options *options, uint32_t route)
{
    char *head, length[64] = "", host[64], service[32] = "", path[128];
    if (options->upload_len)
        snprintf(length, sizeof length, "Content-Length: %llu\r\n",
                 (unsigned long long)options->upload_len);
    snprintf(host, sizeof host, "127.0.0.1:%u", options->port);
    if (options->route_count) {
        snprintf(host, sizeof host, "host-%u.example.com", route / ROUTES_PER_HOST);
        snprintf(service, sizeof service, "/service-%u", route % ROUTES_PER_HOST);
    }
    snprintf(path, sizeof path, "/%llu%s", (unsigned long long)options->response_len, service);
    if (options->also && route % 2)
        snprintf(path, sizeof path, "%s", options->also);
    int len = asprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n%s%s\r\n",
                       options->upload_len ? "POST" : "GET", path, host,
                       options->closes ? "close" : "keep-alive", fields[options->fields], length);
    if (len < 0)
        fail("asprintf");
    return head;
}
