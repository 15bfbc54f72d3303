//! The macros with which a message, a bit set or an open set of numbers is declared once.

/// Declares a struct whose fields lie on the wire in the order of the text.
///
/// A field is `name: Type`, where the type is a scalar, or `name: Type => Kind` with a kind from `fields` or another
/// declared struct (with `'static` in place of its lifetime).
macro_rules! wire_struct {
    ($(#[$doc:meta])* pub struct $Name:ident<$life:lifetime> { $($fields:tt)* }) => {
        $crate::wire::wire_struct!(@declare [$(#[$doc])*] $Name [<$life>] { $($fields)* });
        $crate::wire::wire_struct!(@field $Name<'static>, $Name<'value>, $Name { $($fields)* });
    };
    ($(#[$doc:meta])* pub struct $Name:ident { $($fields:tt)* }) => {
        $crate::wire::wire_struct!(@declare [$(#[$doc])*] $Name [] { $($fields)* });
        $crate::wire::wire_struct!(@field $Name, $Name, $Name { $($fields)* });
    };
    (@declare [$($doc:tt)*] $Name:ident [$($life:tt)*] {
        $( $(#[$field_doc:meta])* $field:ident: $Type:ty $(=> $Kind:ty)? ),* $(,)?
    }) => {
        $($doc)*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $Name $($life)* {
            $( $(#[$field_doc])* pub $field: $Type, )*
        }
    };
    (@field $Static:ty, $Value:ty, $Name:ident {
        $( $(#[$field_doc:meta])* $field:ident: $Type:ty $(=> $Kind:ty)? ),* $(,)?
    }) => {
        impl $crate::wire::Field for $Static {
            type Value<'value> = $Value;
            const SLOT: usize = 0 $( + <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::SLOT )*;
            const BY_OFFSET: bool = false $( || <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::BY_OFFSET )*;

            #[inline(always)]
            #[allow(unused_assignments, reason = "the last field's end is not needed")]
            fn decode<'value>(
                at: $crate::wire::At,
                slot: &[u8],
                tail: &mut $crate::wire::Tail<'value>,
            ) -> Result<$Value, $crate::wire::Located> {
                let mut slot = slot;
                let mut offset = at.offset;
                $(
                    let $field = {
                        let size = <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::SLOT;
                        // INVARIANT: the slot was cut to the sum of the sizes.
                        let (own, rest) = slot.split_at_checked(size).unwrap_or_default();
                        let at = $crate::wire::At { field: stringify!($field), offset };
                        slot = rest;
                        offset = offset.saturating_add(size);
                        <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::decode(at, own, tail)?
                    };
                )*
                Ok($Name { $($field),* })
            }

            #[inline(always)]
            fn tail_len<'value>(value: $Value) -> usize {
                let mut length = 0usize;
                $( length = length.saturating_add(
                    <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::tail_len(value.$field)
                ); )*
                length
            }

            #[inline(always)]
            fn encode<'value>(value: $Value, slot: &mut [u8], tail: &mut $crate::wire::TailWriter<'_>) {
                let mut slot = slot;
                $(
                    let size = <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::SLOT;
                    let (own, rest) = slot.split_at_mut_checked(size).unwrap_or_default();
                    <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::encode(value.$field, own, tail);
                    slot = rest;
                )*
                let _ = slot;
            }

            fn first_cut(at: $crate::wire::At, length: usize) -> Option<$crate::wire::At> {
                let mut offset = at.offset;
                $(
                    let at = $crate::wire::At { field: stringify!($field), offset };
                    let cut = <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::first_cut(at, length);
                    if cut.is_some() {
                        return cut;
                    }
                    offset = offset.saturating_add(<$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::SLOT);
                )*
                let _ = offset;
                None
            }
        }
    };
    (@kind $Type:ty) => { $Type };
    (@kind $Type:ty, $Kind:ty) => { $Kind };
}

/// Declares all messages of one direction: per row the section (`base` or `main`), the id, the C name, the Rust name, and
/// the fields as in `wire_struct!`, if it has any.
///
/// From it come a struct per message with fields, the enum, decoding, encoding, and the table of rows.
macro_rules! messages {
    (
        $(#[$enum_doc:meta])*
        pub enum $Enum:ident;
        $( $(#[$doc:meta])* $section:ident $id:literal $c_name:literal $Name:ident $( $(<$life:lifetime>)? { $($fields:tt)* } )?; )*
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $Enum<'a> {
            $(
                $(#[$doc])*
                #[doc = ""]
                #[doc = concat!("`", $c_name, "`, id ", $id, ".")]
                $Name $( ($Name $(<$life>)?) )?,
            )*
            /// A message that this crate does not know, or one of another channel type: kept as it came.
            Unknown {
                /// The id.
                id: u16,
                /// The body.
                body: $crate::wire::Data<'a>,
            },
        }

        $( $crate::wire::messages!(@struct [$(#[$doc])*] $id $c_name $Name [$( $(<$life>)? { $($fields)* } )?]); )*

        impl<'a> $Enum<'a> {
            /// All messages of this direction that the crate knows, in order of their ids.
            pub const TABLE: &'static [$crate::message::Row] = &[
                $( $crate::message::Row { id: $id, c_name: $c_name, section: $crate::message::Section::$section }, )*
            ];

            /// Decodes the body of message `id` as it arrived on a channel of type `channel`.
            ///
            /// Ids up to 100 are the base messages of every channel. Above, only the main channel's are known: others
            /// become [`Self::Unknown`]. Borrows from `body`; allocates nothing.
            ///
            /// # Errors
            /// When the body of a known message is not one: see [`DecodeError`](crate::DecodeError).
            #[inline]
            pub fn decode(
                channel: $crate::ChannelType,
                id: u16,
                body: &'a [u8],
            ) -> Result<Self, $crate::DecodeError> {
                if id > $crate::message::LAST_BASE_ID && channel != $crate::ChannelType::MAIN {
                    return Ok(Self::Unknown { id, body: $crate::wire::Data(body) });
                }
                match id {
                    $( $id => $crate::wire::messages!(@decode $c_name $Name body [$( $($fields)* )?]), )*
                    _ => Ok(Self::Unknown { id, body: $crate::wire::Data(body) }),
                }
            }

            /// The id on the wire.
            #[must_use]
            pub const fn id(&self) -> u16 {
                match self {
                    $( Self::$Name { .. } => $id, )*
                    Self::Unknown { id, .. } => *id,
                }
            }

            /// The C name, such as `SPICE_MSG_MAIN_INIT`.
            #[must_use]
            pub const fn c_name(&self) -> &'static str {
                match self {
                    $( Self::$Name { .. } => $c_name, )*
                    Self::Unknown { .. } => "unknown",
                }
            }
        }

        impl $crate::message::sealed::Sealed for $Enum<'_> {}

        impl $crate::message::Message for $Enum<'_> {
            fn id(&self) -> u16 {
                self.id()
            }

            #[inline]
            fn encoded_len(&self) -> usize {
                match *self {
                    $( $crate::wire::messages!(@pattern $Name value [$( $($fields)* )?]) => $crate::wire::messages!(@length $Name value [$( $($fields)* )?]), )*
                    Self::Unknown { body, .. } => body.0.len(),
                }
            }

            #[inline]
            fn encode(&self, out: &mut [u8]) -> Result<usize, $crate::EncodeError> {
                match *self {
                    $( $crate::wire::messages!(@pattern $Name value [$( $($fields)* )?]) => $crate::wire::messages!(@encode $Name value out [$( $($fields)* )?]), )*
                    Self::Unknown { body, .. } => $crate::wire::encode_body::<$crate::wire::Rest>(body, out),
                }
            }
        }
    };
    (@struct [$($doc:tt)*] $id:literal $c_name:literal $Name:ident []) => {};
    (@struct [$($doc:tt)*] $id:literal $c_name:literal $Name:ident [$($declaration:tt)+]) => {
        $crate::wire::wire_struct! {
            $($doc)*
            #[doc = ""]
            #[doc = concat!("`", $c_name, "`, id ", $id, ".")]
            pub struct $Name $($declaration)+
        }
    };
    (@decode $c_name:literal $Name:ident $body:ident []) => {
        match $crate::wire::decode_empty($c_name, $body) {
            Ok(()) => Ok(Self::$Name),
            Err(error) => Err(error),
        }
    };
    (@decode $c_name:literal $Name:ident $body:ident [$($fields:tt)+]) => {{
        const SLOT: usize = <$Name as $crate::wire::Field>::SLOT;
        match $crate::wire::decode_body::<$Name, SLOT>($c_name, $body) {
            Ok(value) => Ok(Self::$Name(value)),
            Err(error) => Err(error),
        }
    }};
    (@pattern $Name:ident $value:ident []) => { Self::$Name };
    (@pattern $Name:ident $value:ident [$($fields:tt)+]) => { Self::$Name($value) };
    (@length $Name:ident $value:ident []) => { 0 };
    (@length $Name:ident $value:ident [$($fields:tt)+]) => {
        <$Name as $crate::wire::Field>::SLOT.saturating_add(<$Name as $crate::wire::Field>::tail_len($value))
    };
    (@encode $Name:ident $value:ident $out:ident []) => { Ok(0) };
    (@encode $Name:ident $value:ident $out:ident [$($fields:tt)+]) => { $crate::wire::encode_body::<$Name>($value, $out) };
}

/// Declares a number whose known values have names; unknown ones are kept.
macro_rules! open_enum {
    (
        $(#[$doc:meta])*
        pub struct $Name:ident($number:ty);
        $( $(#[$value_doc:meta])* $VALUE:ident = $value:literal $text:literal; )*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $Name(pub $number);

        impl $Name {
            $( $(#[$value_doc])* pub const $VALUE: Self = Self($value); )*

            /// The known values in order.
            pub const KNOWN: &'static [Self] = &[$( Self::$VALUE ),*];

            /// The name of a known value.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some($text), )*
                    _ => None,
                }
            }
        }

        impl core::fmt::Display for $Name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => formatter.write_str(name),
                    None => write!(formatter, "unknown ({})", self.0),
                }
            }
        }

        impl core::fmt::Debug for $Name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, formatter)
            }
        }

        $crate::wire::newtype_field!($Name($number));
    };
}

/// Lets a newtype around a number lie on the wire as that number.
macro_rules! newtype_field {
    ($Name:ident($number:ty)) => {
        impl $crate::wire::Field for $Name {
            type Value<'value> = Self;
            const SLOT: usize = size_of::<$number>();
            #[inline(always)]
            fn decode<'value>(
                at: $crate::wire::At,
                slot: &[u8],
                tail: &mut $crate::wire::Tail<'value>,
            ) -> Result<Self, $crate::wire::Located> {
                <$number as $crate::wire::Field>::decode(at, slot, tail).map(Self)
            }
            #[inline(always)]
            fn tail_len(_: Self) -> usize {
                0
            }
            #[inline(always)]
            fn encode(value: Self, slot: &mut [u8], tail: &mut $crate::wire::TailWriter<'_>) {
                <$number as $crate::wire::Field>::encode(value.0, slot, tail);
            }
        }
    };
}

/// Declares a set of bits; unknown ones are kept.
macro_rules! flags {
    (
        $(#[$doc:meta])*
        pub struct $Name:ident($number:ty);
        $( $(#[$flag_doc:meta])* $FLAG:ident = $bit:literal; )*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $Name(pub $number);

        impl $Name {
            $( $(#[$flag_doc])* pub const $FLAG: Self = Self($bit); )*

            /// Whether all bits of `other` are set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of both.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl core::fmt::Debug for $Name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let mut unnamed = self.0;
                let mut separator = "";
                $(
                    if self.contains(Self::$FLAG) {
                        write!(formatter, "{separator}{}", stringify!($FLAG))?;
                        separator = "|";
                        unnamed &= !$bit;
                    }
                )*
                if unnamed != 0 || separator.is_empty() { write!(formatter, "{separator}{unnamed:#x}") } else { Ok(()) }
            }
        }

        $crate::wire::newtype_field!($Name($number));
    };
}

pub(crate) use {flags, messages, newtype_field, open_enum, wire_struct};
