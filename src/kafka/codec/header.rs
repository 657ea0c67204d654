//! What stands before each message, and whole frames.

use bytes::Bytes;

use super::api::ApiKey;
use super::fault::{DecodeError, EncodeError};
use super::field::{Field, Layout, Message, RequestMessage, Str};
use super::reader::Reader;
use super::writer::{Frame, Writer};

/// Lengths and strings of headers are the old ones at every version.
const OLD: Layout = Layout { version: 1, flexible: false };

/// The header before a request, versions 1 and 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// What is asked.
    pub api_key: ApiKey,
    /// In which version; not checked against [`ApiKey::versions`].
    pub api_version: i16,
    /// Comes back with the answer.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Reads the header of a request; the reader then stands before the message.
    ///
    /// The version may be one that is not declared: an answer of ApiVersions has to say so, anything else closes the
    /// connection.
    ///
    /// # Errors
    /// [`super::Fault::UnknownApiKey`], or what was wrong with the bytes.
    pub fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Self::read_fields(reader).map_err(|error| error.within("RequestHeader", 2))
    }

    fn read_fields(reader: &mut Reader) -> Result<Self, DecodeError> {
        let code = i16::decode(reader, OLD)?;
        let api_key = ApiKey::try_from(code).map_err(|fault| DecodeError::new(fault, 0).under("api_key"))?;
        let api_version = i16::decode(reader, OLD).map_err(|error| error.under("api_version"))?;
        let correlation_id = i32::decode(reader, OLD).map_err(|error| error.under("correlation_id"))?;
        // Version 2 has a short string here too, not a compact one.
        let client_id = Option::decode(reader, OLD).map_err(|error| error.under("client_id"))?;
        if api_key.is_flexible(api_version) {
            reader.tagged_fields(|_, _| Ok(false))?;
        }
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }

    /// Writes the header of a request.
    pub fn write(&self, writer: &mut Writer) {
        self.api_key.code().encode(writer, OLD);
        self.api_version.encode(writer, OLD);
        self.correlation_id.encode(writer, OLD);
        self.client_id.encode(writer, OLD);
        if self.api_key.is_flexible(self.api_version) {
            writer.uvarint(0);
        }
    }
}

/// The header before an answer, versions 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The request's.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header before an answer of this API and version.
    ///
    /// # Errors
    /// What was wrong with the bytes.
    pub fn read(reader: &mut Reader, key: ApiKey, version: i16) -> Result<Self, DecodeError> {
        let correlation_id = i32::decode(reader, OLD).map_err(|error| error.within("ResponseHeader", 0))?;
        if key.response_header_version(version) > 0 {
            reader.tagged_fields(|_, _| Ok(false)).map_err(|error| error.within("ResponseHeader", 1))?;
        }
        Ok(Self { correlation_id })
    }

    /// Writes the header before an answer of this API and version.
    pub fn write(self, writer: &mut Writer, key: ApiKey, version: i16) {
        self.correlation_id.encode(writer, OLD);
        if key.response_header_version(version) > 0 {
            writer.uvarint(0);
        }
    }
}

/// A request as a frame: length, header, message.
///
/// # Errors
/// A version that is not declared, or something too long for its length field.
pub fn request_frame<R: RequestMessage>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<Str>,
) -> Result<Frame, EncodeError> {
    let mut writer = Writer::new();
    RequestHeader { api_key: R::KEY, api_version: version, correlation_id, client_id }.write(&mut writer);
    request.write_message(&mut writer, version);
    writer.finish_frame()
}

/// An answer as a frame: length, header, message. `version` is the request's.
///
/// # Errors
/// A version that is not declared, or something too long for its length field.
pub fn response_frame<M: Message>(
    key: ApiKey,
    response: &M,
    version: i16,
    correlation_id: i32,
) -> Result<Frame, EncodeError> {
    let mut writer = Writer::new();
    ResponseHeader { correlation_id }.write(&mut writer, key, version);
    response.write_message(&mut writer, version);
    writer.finish_frame()
}

/// Reads the answer to a request from a frame without its length.
///
/// # Errors
/// What was wrong with the bytes.
pub fn read_response<R: RequestMessage>(frame: Bytes, version: i16) -> Result<(i32, R::Response), DecodeError> {
    let mut reader = Reader::new(frame);
    let header = ResponseHeader::read(&mut reader, R::KEY, version)?;
    let response = R::Response::read_message(&mut reader, version)?;
    reader.finish()?;
    Ok((header.correlation_id, response))
}
