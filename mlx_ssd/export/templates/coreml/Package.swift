// swift-tools-version: 6.0
import PackageDescription

// Written for Core ML of the SDKs of macOS 15 and iOS 18, and swift-transformers 1.3.3, from its source; not compiled,
// not run on a device.
let package = Package(
    name: "Student",
    platforms: [.macOS(.v15), .iOS(.v18)],
    products: [.library(name: "Student", targets: ["Student"])],
    dependencies: [
        .package(url: "https://github.com/huggingface/swift-transformers", exact: "1.3.3")
    ],
    targets: [
        .target(name: "Student", dependencies: [.product(name: "Tokenizers", package: "swift-transformers")]),
        .executableTarget(name: "chat", dependencies: ["Student"]),
    ],
    swiftLanguageModes: [.v5]
)
