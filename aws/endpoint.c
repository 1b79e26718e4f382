#include "aws/endpoint.h"

#include <ctype.h>
#include <strings.h>

#include "aws/http.h"

const AwsService aws_service_rds = {"RDS", "rds", "rds", "rds", "2014-10-31", AWS_QUERY, false};
const AwsService aws_service_kms = {"KMS", "kms", "kms", "kms", "TrentService", AWS_JSON, false};
const AwsService aws_service_sts = {"STS", "sts", "sts", "sts", "2011-06-15", AWS_QUERY, false};
const AwsService aws_service_route53 = {"Route 53",   "route_53",   "route53", "route53",
                                        "2013-04-01", AWS_REST_XML, true};

/* A partition is a set of regions with its own names and accounts. */
static const struct {
    const char *prefix;   /* of its regions; "" matches the rest, so it comes last */
    const char *suffix;   /* of its hosts */
    const char *dns_host; /* of Route 53, which is one for the partition */
    const char *dns_region;
} partitions[] = {
    {"cn-", "amazonaws.com.cn", "route53.amazonaws.com.cn", "cn-northwest-1"},
    {"us-gov-", "amazonaws.com", "route53.us-gov.amazonaws.com", "us-gov-west-1"},
    {"us-iso-", "c2s.ic.gov", "route53.c2s.ic.gov", "us-iso-east-1"},
    {"us-isob-", "sc2s.sgov.gov", "route53.sc2s.sgov.gov", "us-isob-east-1"},
    {"", "amazonaws.com", "route53.amazonaws.com", "us-east-1"},
};

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static bool variable_is_true(const char *name)
{
    const char *value = variable(name);

    return value && strcasecmp(value, "true") == 0;
}

static const char *service_variable(const AwsService *service, Arena *arena)
{
    char *name = arena_printf(arena, "AWS_ENDPOINT_URL_%s", service->setting);

    for (char *c = name; *c; c++)
        *c = (char)toupper((unsigned char)*c);
    return name;
}

/* The configured URL and where it comes from; NULL when none is. */
static const char *configured(const Profiles *profiles, const EndpointQuestion *question,
                              Arena *arena, const char **origin)
{
    const AwsService *service = question->service;
    const char *own = service_variable(service, arena);
    const char *section;
    const char *url;

    if (question->override) {
        *origin = "the endpoint option";
        return question->override;
    }
    section = profiles_setting(profiles, question->profile, "ignore_configured_endpoint_urls");
    if (variable_is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") ||
        (section && strcasecmp(section, "true") == 0))
        return NULL;
    *origin = own;
    if ((url = variable(own)))
        return url;
    *origin = "AWS_ENDPOINT_URL";
    if ((url = variable("AWS_ENDPOINT_URL")))
        return url;
    *origin = profiles_path(profiles, PROFILE_CONFIG);
    section = profiles_get(profiles, PROFILE_CONFIG, "profile", question->profile, "services");
    if (section && (url = profiles_get(profiles, PROFILE_CONFIG, "services", section,
                                       arena_printf(arena, "%s.endpoint_url", service->setting))))
        return url;
    return profiles_get(profiles, PROFILE_CONFIG, "profile", question->profile, "endpoint_url");
}

static bool region_is_sane(const char *region)
{
    return *region && strlen(region) <= 63 &&
           strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(region);
}

static size_t partition_of(const char *region)
{
    size_t i = 0;

    while (strncmp(region, partitions[i].prefix, strlen(partitions[i].prefix)) != 0)
        i++;
    return i;
}

static bool check_url(const char *url, const char *origin, Arena *arena, Err *err)
{
    HttpUrl parts;

    if (http_url(url, arena, &parts) && !*parts.query)
        return true;
    return err_fail(err, ERR_CONFIG, "the endpoint in %s isn't a plain http or https URL", origin);
}

static bool wants_variant(const Profiles *profiles, const EndpointQuestion *question,
                          const char *name, const char *setting)
{
    const char *value = profiles_setting(profiles, question->profile, setting);

    return variable(name) ? variable_is_true(name) : value && strcasecmp(value, "true") == 0;
}

/* In GovCloud the plain hosts are FIPS already, but for KMS. */
static const char *fips_host(const AwsService *service, size_t partition, Arena *arena)
{
    bool plain =
        strcmp(partitions[partition].prefix, "us-gov-") == 0 && strcmp(service->host, "kms") != 0;

    return plain ? service->host : arena_printf(arena, "%s-fips", service->host);
}

static bool own_endpoint(const Profiles *profiles, const EndpointQuestion *question, Arena *arena,
                         Endpoint *out, Err *err)
{
    const AwsService *service = question->service;
    const char *region = question->region ? question->region : "us-east-1";
    size_t partition = partition_of(region);
    bool fips = wants_variant(profiles, question, "AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint");
    const char *host;

    if (wants_variant(profiles, question, "AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint"))
        return err_fail(
            err, ERR_CONFIG,
            "dual-stack endpoints aren't supported: set %s instead of AWS_USE_DUALSTACK_ENDPOINT",
            service_variable(service, arena));
    host = fips ? fips_host(service, partition, arena) : service->host;
    out->origin = "AWS's own for the region";
    if (!service->global) {
        out->region = region;
        out->url =
            arena_printf(arena, "https://%s.%s.%s", host, region, partitions[partition].suffix);
        return true;
    }
    out->region = partitions[partition].dns_region;
    out->url = fips && *partitions[partition].prefix == '\0'
                   ? arena_printf(arena, "https://%s.%s", host, partitions[partition].suffix)
                   : arena_printf(arena, "https://%s", partitions[partition].dns_host);
    return true;
}

bool endpoint_find(const Profiles *profiles, const EndpointQuestion *question, Arena *arena,
                   Endpoint *out, Err *err)
{
    const char *url = configured(profiles, question, arena, &out->origin);
    const char *region = question->region ? question->region : "us-east-1";
    size_t len;

    if (!region_is_sane(region))
        return err_fail(err, ERR_CONFIG, "\"%.64s\" can't be an AWS region", region);
    if (!url)
        return own_endpoint(profiles, question, arena, out, err);
    if (!check_url(url, out->origin, arena, err))
        return false;
    len = strlen(url);
    while (len && url[len - 1] == '/')
        len--;
    out->url = arena_str_of(arena, span_of(url, len));
    out->region = question->service->global ? partitions[partition_of(region)].dns_region : region;
    return true;
}
