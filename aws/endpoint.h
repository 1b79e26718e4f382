/* endpoint.h - which URL a service is asked at, and for which region requests to it are signed.
 *
 * In this order: the option, AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL, the profile's `services`
 * section, the profile's endpoint_url (the last four unless AWS_IGNORE_CONFIGURED_ENDPOINT_URLS),
 * AWS's own for the region's partition.
 */
#ifndef AWS_ENDPOINT_H
#define AWS_ENDPOINT_H

#include "aws/profile.h"
#include "engine/base/arena.h"

typedef enum AwsProtocol { AWS_QUERY, AWS_JSON, AWS_REST_XML } AwsProtocol;

typedef struct AwsService {
    const char *title;   /* in errors: "RDS" */
    const char *setting; /* "rds", "route_53": upper-cased behind AWS_ENDPOINT_URL_, and in a
                            `services` section */
    const char *host;    /* first label of the host */
    const char *signing; /* name in the signature, and prefix of IAM actions */
    const char *version; /* of the API (query); target prefix (JSON) */
    AwsProtocol protocol;
    bool global; /* one endpoint for a partition */
} AwsService;

extern const AwsService aws_service_rds;
extern const AwsService aws_service_kms;
extern const AwsService aws_service_sts;
extern const AwsService aws_service_route53;

typedef struct Endpoint {
    const char *url;    /* without a slash at the end */
    const char *region; /* to sign for */
    const char *origin; /* where it comes from, for messages */
} Endpoint;

typedef struct EndpointQuestion {
    const AwsService *service;
    const char *region;   /* may be NULL when an override is set or the service is global; then
                             us-east-1 is signed */
    const char *override; /* the option; NULL: none */
    const char *profile;
} EndpointQuestion;

MUST_USE bool endpoint_find(const Profiles *profiles, const EndpointQuestion *question,
                            Arena *arena, Endpoint *out, Err *err);

#endif
