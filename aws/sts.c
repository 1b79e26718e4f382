#include "aws/sts.h"

#include "aws/client_impl.h"

bool sts_get_caller_identity(Aws *aws, Arena *arena, StsIdentity *out, Err *err)
{
    const XmlNode *result;
    AUTO_QUERY query;

    query_init(&query, "GetCallerIdentity", aws_service_sts.version);
    if (!aws_query(aws, &aws_service_sts, "GetCallerIdentity", &query, arena, &result, err))
        return false;
    *out = (StsIdentity){.account = xml_text(result, "Account"),
                         .arn = xml_text(result, "Arn"),
                         .user_id = xml_text(result, "UserId")};
    return (out->account && out->arn) ||
           err_fail(err, ERR_PROTOCOL, "STS GetCallerIdentity: the answer has no account");
}
